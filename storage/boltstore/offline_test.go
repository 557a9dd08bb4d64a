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
	"github.com/caddy-apikeys/caddy-apikeys/storage"
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

// read returns the records of a file that must be sound.
func read(t *testing.T, path string) map[string]string {
	t.Helper()
	store, err := Examine(path, func(problem string) { t.Errorf("%s: %s", path, problem) })
	if err != nil || store == nil {
		t.Fatalf("%s is not sound: %v", path, err)
	}
	defer store.Close()
	all := make(map[string]string)
	if err := store.View(context.Background(), func(r apikey.Reader) error {
		for _, table := range apikey.Tables() {
			if err := r.Scan(table, apikey.Range{}, func(key, value []byte) bool {
				all[table.String()+" "+string(key)] = string(value)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
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

func TestADamagedFileIsNeverTakenForASoundOne(t *testing.T) {
	s := open(t)
	s.fill(100)
	for i := range 20 {
		s.mustPut(fmt.Sprintf("%06d", i*5), strings.Repeat("w", 300))
	}
	s.Close()
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, s.path)
	path := filepath.Join(t.TempDir(), "damaged")
	looks := func(content []byte) (problems []string, records map[string]string) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := Examine(path, func(problem string) { problems = append(problems, problem) })
		if err != nil {
			return []string{err.Error()}, nil
		}
		if store == nil {
			if len(problems) == 0 {
				t.Fatal("neither a store nor a reason")
			}
			return problems, nil
		}
		store.Close()
		return nil, read(t, path)
	}
	page := os.Getpagesize()
	m, err := readMeta(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	end := int(m.end) * page

	for cut := 0; cut < end; cut += page/2 + 1 {
		if problems, _ := looks(whole[:cut]); problems == nil {
			t.Errorf("cut to %d of %d bytes it passes", cut, end)
		}
	}
	// Every bit of what is not a value: bbolt has no checksums for those, but the
	// Keyring has.
	flips, refused := 0, 0
	for at := 2 * page; at < end; at += page {
		for offset := 0; offset < 16+8*16; offset++ {
			content := bytes.Clone(whole)
			content[at+offset] ^= 1 << (offset % 8)
			flips++
			problems, records := looks(content)
			if problems != nil {
				refused++
				continue
			}
			// What passes holds all keys: the bit was in a free page, or in a
			// value.
			if len(records) != len(want) {
				t.Errorf("bit %d of byte %d of page %d: %d records of %d", offset%8, offset, at/page, len(records), len(want))
			}
		}
	}
	if refused == 0 || refused == flips {
		t.Errorf("%d of %d flipped files were refused: the test has lost its grip", refused, flips)
	}
	for at := 2 * page; at < end; at += page {
		for name, damage := range map[string][]byte{"zeros": make([]byte, page), "ones": bytes.Repeat([]byte{0xff}, page)} {
			content := bytes.Clone(whole)
			copy(content[at:], damage)
			if problems, records := looks(content); problems == nil && len(records) != len(want) {
				t.Errorf("page %d, %s: %d records of %d", at/page, name, len(records), len(want))
			}
		}
	}
	if problems, records := looks(whole); problems != nil || len(records) != len(want) {
		t.Errorf("the whole file is refused: %q", problems)
	}
}

func TestARewrittenStoreHasTheSameRecordsInLessRoom(t *testing.T) {
	s := open(t)
	s.fill(3000)
	if err := s.Update(context.Background(), func(tx apikey.Tx) (err error) {
		for i := range 2900 {
			err = errors.Join(err, tx.Delete(apikey.TableKeys, fmt.Appendf(nil, "%06d", i)))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	how := storage.Rewriting{Replace: true, Aside: s.path + ".old"}
	if err := Rewrite(context.Background(), s.path, s.path, how, nil); !errors.Is(err, storage.ErrInUse) {
		t.Errorf("while it is in use: %v", err)
	}
	s.Close()
	want := read(t, s.path)
	before, _ := os.ReadFile(s.path)
	if err := Rewrite(context.Background(), s.path, s.path, how, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() > int64(len(before)/4) {
		t.Errorf("%v, mode %v, %d bytes of %d", err, info.Mode(), info.Size(), len(before))
	}
	if got := read(t, s.path); len(got) != 100 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d records of %d", len(got), len(want))
	}
	if aside, err := os.ReadFile(how.Aside); err != nil || !bytes.Equal(aside, before) {
		t.Errorf("the old file was not kept: %v", err)
	}
}

func TestARewritingThatFailsLeavesAllAsItWas(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, path := range []string{from, to} {
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		faulty{s, t}.mustPut("a", path)
		s.Close()
	}
	bad := filepath.Join(dir, "bad")
	content, _ := os.ReadFile(from)
	if err := os.WriteFile(bad, content[:len(content)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(to)
	no := errors.New("no")
	refuse := func(apikey.Store) error { return no }
	for name, test := range map[string]struct {
		from string
		how  storage.Rewriting
		do   func(apikey.Store) error
	}{
		"there is one":      {from, storage.Rewriting{}, nil},
		"the change fails":  {from, storage.Rewriting{Replace: true, Aside: to + ".old"}, refuse},
		"it is cut off":     {bad, storage.Rewriting{Replace: true, Aside: to + ".old"}, nil},
		"it is not there":   {from + "x", storage.Rewriting{Replace: true, Aside: to + ".old"}, nil},
		"it cannot be kept": {from, storage.Rewriting{Replace: true, Aside: bad}, nil},
	} {
		if err := Rewrite(context.Background(), test.from, to, test.how, test.do); err == nil {
			t.Errorf("%s: it was done", name)
		}
		if after, _ := os.ReadFile(to); !bytes.Equal(before, after) {
			t.Errorf("%s: the file has changed", name)
		}
		if files, _ := os.ReadDir(dir); len(files) != 3 {
			t.Errorf("%s: it left %v", name, files)
		}
	}
	if err := Rewrite(context.Background(), from, to, storage.Rewriting{Replace: true}, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, to); got["keys a"] != from {
		t.Errorf("it has %v", got)
	}
}
