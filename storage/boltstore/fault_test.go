//go:build linux

package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// faulty is a store whose disk, file or commits are about to fail.
type faulty struct {
	*Store
	t *testing.T
}

func open(t *testing.T) faulty {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return faulty{s, t}
}

func (s faulty) put(key, value string) error {
	return s.Update(context.Background(), func(tx apikey.Tx) error {
		return tx.Put(apikey.TableKeys, []byte(key), []byte(value))
	})
}

func (s faulty) get(key string) (value string, err error) {
	err = s.View(context.Background(), func(r apikey.Reader) error {
		b, err := r.Get(apikey.TableKeys, []byte(key))
		value = string(b)
		return err
	})
	return value, err
}

func (s faulty) mustPut(key, value string) {
	s.t.Helper()
	if err := s.put(key, value); err != nil {
		s.t.Fatalf("putting %s: %v", key, err)
	}
}

func (s faulty) want(key, value string) {
	s.t.Helper()
	if got, err := s.get(key); got != value || err != nil {
		s.t.Errorf("%s is %d bytes, %v; want %d bytes", key, len(got), err, len(value))
	}
}

// unavailable asserts that nothing can be read or written, and why.
func (s faulty) unavailable(why string) {
	s.t.Helper()
	if _, err := s.get("a"); !errors.Is(err, apikey.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), why) {
		s.t.Errorf("View answered %v, want unavailable, %s", err, why)
	}
	s.unwritable(why)
}

func (s faulty) unwritable(why string) {
	s.t.Helper()
	if err := s.put("a", "2"); !errors.Is(err, apikey.ErrUnavailable) || errors.Is(err, apikey.ErrOutcomeUnknown) ||
		!strings.Contains(fmt.Sprint(err), why) || !strings.Contains(fmt.Sprint(err), s.path) {
		s.t.Errorf("Update answered %v, want unavailable, %s, and the path", err, why)
	}
}

func (s faulty) fill(n int) {
	s.t.Helper()
	if err := s.Update(context.Background(), func(tx apikey.Tx) error {
		for i := range n {
			if err := tx.Put(apikey.TableKeys, fmt.Appendf(nil, "%06d", i), fmt.Appendf(nil, "%0500d", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// refuseWrites makes the disk refuse every further write to the open file.
func (s faulty) refuseWrites() {
	s.t.Helper()
	readOnly, err := os.Open(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer readOnly.Close()
	if err := syscall.Dup3(int(readOnly.Fd()), int(s.db.Load().file.Fd()), 0); err != nil {
		s.t.Fatal(err)
	}
}

// aSecondPasses lets a store that could not be opened again be tried at once.
func (s faulty) aSecondPasses() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retry = time.Time{}
}

func TestACommitThatFailsLeavesNothingAndTheNextSucceeds(t *testing.T) {
	for name, spoil := range map[string]func(s faulty){
		"for want of space":       func(s faulty) { s.db.Load().bolt.MaxSize = 1 },
		"when the disk refuses":   faulty.refuseWrites,
		"when bbolt panics in it": func(s faulty) { s.nextCommit(func(*bolt.Tx) error { panic("assertion failed") }) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.mustPut("a", "1")
			spoil(s)
			big := strings.Repeat("v", maxValueBytes)
			if err := s.put("b", big); !errors.Is(err, apikey.ErrUnavailable) || errors.Is(err, apikey.ErrOutcomeUnknown) {
				t.Errorf("answered %v, want unavailable", err)
			}
			s.want("a", "1")
			s.want("b", "")
			s.mustPut("b", big)
			s.want("b", big)
		})
	}
}

// nextCommit replaces one commit.
func (s faulty) nextCommit(commit func(*bolt.Tx) error) {
	s.commit = func(tx *bolt.Tx) error {
		s.commit = (*bolt.Tx).Commit
		return commit(tx)
	}
}

var errIO = errors.New("input/output error")

func TestACommitThatFailsAfterItsMetaPageWasWrittenIsUnknown(t *testing.T) {
	s := open(t)
	s.mustPut("a", "1")
	s.nextCommit(func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), errIO) })
	err := s.put("b", "2")
	if !errors.Is(err, apikey.ErrOutcomeUnknown) || errors.Is(err, apikey.ErrUnavailable) || !errors.Is(err, errIO) {
		t.Errorf("answered %v, want unknown", err)
	}
	s.want("b", "2")
	s.mustPut("b", "2")
	s.want("b", "2")
}

func TestACommitThatFailsIsUnknownWhenTheFileCannotBeOpenedAgain(t *testing.T) {
	s := open(t)
	s.mustPut("a", "1")
	away := s.path + ".away"
	s.nextCommit(func(*bolt.Tx) error { return errors.Join(os.Rename(s.path, away), errIO) })
	if err := s.put("b", "2"); !errors.Is(err, apikey.ErrOutcomeUnknown) {
		t.Errorf("answered %v, want unknown", err)
	}
	s.unavailable("put it back")
	if err := os.Rename(away, s.path); err != nil {
		t.Fatal(err)
	}
	s.aSecondPasses()
	s.want("a", "1")
	s.mustPut("b", "2")
}

func TestViewsRideOutCommitsThatFail(t *testing.T) {
	s := open(t)
	s.mustPut("a", "1")
	stop := make(chan struct{})
	var viewing sync.WaitGroup
	for range 4 {
		viewing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.want("a", "1")
				}
			}
		})
	}
	for range 30 {
		s.nextCommit(func(*bolt.Tx) error { return errIO })
		s.unwritable("input/output error")
	}
	close(stop)
	viewing.Wait()
}

func TestNothingIsWrittenToAFileThatLostItsName(t *testing.T) {
	for name, spoil := range map[string]func(path, away string) error{
		"moved": os.Rename,
		"deleted": func(path, away string) error {
			return errors.Join(os.Link(path, away), os.Remove(path))
		},
		"replaced": func(path, away string) error {
			content, err := os.ReadFile(path)
			return errors.Join(err, os.Rename(path, away), os.WriteFile(path, content, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.mustPut("a", "1")
			away := s.path + ".away"
			if err := spoil(s.path, away); err != nil {
				t.Fatal(err)
			}
			s.unwritable("moved, deleted or replaced while in use")
			s.want("a", "1")
			if err := os.Rename(away, s.path); err != nil {
				t.Fatal(err)
			}
			s.mustPut("a", "3")
			s.want("a", "3")
		})
	}
}

func TestAFileThatAnotherProgramOverwroteIsNotWrittenTo(t *testing.T) {
	other := open(t)
	for i := range 10 {
		other.mustPut("a", fmt.Sprint(i))
	}
	content, err := os.ReadFile(other.path)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	s.mustPut("a", "1")
	if err := os.WriteFile(s.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.unwritable("another program has written to the file")
	if now, err := os.ReadFile(s.path); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the file has changed, %v", err)
	}
}

func TestAFaultOfTheFunctionsOwnIsNotTakenForDamage(t *testing.T) {
	s := open(t)
	s.mustPut("a", "1")
	var nothing *struct{ field int }
	for name, call := range map[string]func(){
		"View": func() {
			_ = s.View(context.Background(), func(apikey.Reader) error { return fmt.Errorf("%d", nothing.field) })
		},
		"Scan": func() {
			_ = s.View(context.Background(), func(r apikey.Reader) error {
				return r.Scan(apikey.TableKeys, apikey.Range{}, func(_, _ []byte) bool { return nothing.field == 0 })
			})
		},
		"Update": func() {
			_ = s.Update(context.Background(), func(apikey.Tx) error { return fmt.Errorf("%d", nothing.field) })
		},
	} {
		func() {
			defer func() {
				if _, ok := recover().(runtime.Error); !ok {
					t.Errorf("%s swallowed the panic", name)
				}
			}()
			call()
		}()
	}
	s.mustPut("a", "2")
}

func TestAFunctionThatEndsItsGoroutineHarmsNobody(t *testing.T) {
	s := open(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Update(context.Background(), func(tx apikey.Tx) error {
			_ = tx.Put(apikey.TableKeys, []byte("half done"), nil)
			runtime.Goexit()
			return nil
		})
	}()
	<-done
	s.mustPut("a", "1")
	s.want("half done", "")
}
