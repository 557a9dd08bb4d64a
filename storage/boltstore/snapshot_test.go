//go:build linux

package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// copyTo takes a snapshot into a file.
func (s faulty) copyTo(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.Snapshot(context.Background(), func(int64) (io.Writer, error) { return f, nil })
}

// Each update writes its number in two places, and deletes and fills at random.
func TestASnapshotUnderWritesIsOneStateOfTheStore(t *testing.T) {
	s := open(t)
	s.fill(3000)
	var answered sync.Map
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for writer := range 3 {
		writers.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name := []byte{'w', byte('0' + writer)}
				if err := s.Update(context.Background(), func(tx apikey.Tx) error {
					return errors.Join(
						tx.Put(apikey.TableKeys, name, []byte(strconv.Itoa(n))),
						tx.Put(apikey.TableUsage, name, []byte(strconv.Itoa(n))),
						tx.Put(apikey.TableKeys, fmt.Appendf(nil, "%06d", n*37%3000), bytes.Repeat([]byte{'x'}, n%900)),
						tx.Delete(apikey.TableKeys, fmt.Appendf(nil, "%06d", n*61%3000)),
					)
				}); err != nil {
					t.Error(err)
					return
				}
				answered.Store(string(name), n)
			}
		})
	}
	dir := t.TempDir()
	for i := range 12 {
		least := make(map[string]int)
		answered.Range(func(name, n any) bool { least[name.(string)] = n.(int); return true })
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := s.copyTo(path); err != nil {
			t.Fatal(err)
		}
		all := read(t, path)
		for name, n := range least {
			key, usage := all["keys "+name], all["usage "+name]
			if got, _ := strconv.Atoi(key); key != usage || got < n {
				t.Errorf("copy %d has update %s in one table and %s in the other, after %d was answered", i, key, usage, n)
			}
		}
	}
	close(stop)
	writers.Wait()
}

func TestASlowReceiverOfASnapshotHoldsUpNoWrite(t *testing.T) {
	s := open(t)
	s.patience = 50 * time.Millisecond
	s.fill(1000)
	written := make(chan error, 1)
	stall := writerFunc(func(p []byte) (int, error) {
		go func() {
			var err error
			for i := range 100 { // until the mapping must grow
				err = errors.Join(err, s.put(fmt.Sprint("more", i), strings.Repeat("x", 60<<10)))
			}
			written <- err
		}()
		if err := <-written; err != nil {
			t.Error(err)
		}
		return len(p), nil
	})
	err := s.Snapshot(context.Background(), func(int64) (io.Writer, error) { return stall, nil })
	if !errors.Is(err, errGaveWay) {
		t.Errorf("answered %v", err)
	}
	s.want("more99", strings.Repeat("x", 60<<10))
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func TestASnapshotEndsWithItsCallerAndWithTheStore(t *testing.T) {
	for name, end := range map[string]func(s faulty, cancel func()){
		"caller": func(_ faulty, cancel func()) { cancel() },
		"store":  func(s faulty, _ func()) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.fill(1000)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan struct{})
			w := writerFunc(func(p []byte) (int, error) {
				go func() { end(s, cancel); close(ended) }()
				<-ended // a store closes when nobody reads any more
				return len(p), nil
			})
			if name == "caller" {
				w = func(p []byte) (int, error) { cancel(); return len(p), nil }
			}
			if err := s.Snapshot(ctx, func(int64) (io.Writer, error) { return w, nil }); err == nil {
				t.Error("the snapshot went on to its end")
			}
		})
	}
}

func TestASnapshotThatCannotStartEndsWithItsTransaction(t *testing.T) {
	for name, start := range map[string]func(int64) (io.Writer, error){
		"start fails":  func(int64) (io.Writer, error) { return nil, errIO },
		"start panics": func(int64) (io.Writer, error) { panic("of the caller's own") },
	} {
		t.Run(name, func(t *testing.T) {
			store, err := Open(filepath.Join(t.TempDir(), "keys.db"))
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() { _ = recover() }()
				if err := store.Snapshot(context.Background(), start); err != errIO {
					t.Errorf("answered %v", err)
				}
			}()
			closed := make(chan struct{})
			go func() {
				_ = store.Close()
				close(closed)
			}()
			select {
			case <-closed:
			case <-time.After(10 * time.Second):
				t.Fatal("the transaction is still there: the store does not close")
			}
		})
	}
}
