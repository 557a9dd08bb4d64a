package boltstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func openKeys(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *Store) idle() int {
	db := s.db.Load()
	db.idle.mu.Lock()
	defer db.idle.mu.Unlock()
	return len(db.idle.kept)
}

func mustPut(t *testing.T, s *Store, key, value string) {
	t.Helper()
	if err := s.Update(context.Background(), func(tx apikey.Tx) error {
		return tx.Put(apikey.TableKeys, []byte(key), []byte(value))
	}); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t *testing.T, s *Store, key, want string) {
	t.Helper()
	if err := s.View(context.Background(), func(r apikey.Reader) error {
		value, err := r.Get(apikey.TableKeys, []byte(key))
		if string(value) != want {
			t.Errorf("%s is %d bytes, want %d", key, len(value), len(want))
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// What is kept must not outlive what it sees, whoever still reads.
func TestViewThatBeganBeforeAnUpdateIsNotKeptForTheNext(t *testing.T) {
	s := openKeys(t)
	// Of a size at which bbolt need not map the file again, which waits for readers.
	mustPut(t, s, "large", strings.Repeat("v", maxValueBytes))
	mustPut(t, s, "a", "1")
	mustGet(t, s, "a", "1")
	if s.idle() != 1 {
		t.Fatalf("%d readers are kept after a View, want 1", s.idle())
	}
	if err := s.View(context.Background(), func(r apikey.Reader) error {
		mustPut(t, s, "a", "2")
		value, err := r.Get(apikey.TableKeys, []byte("a"))
		if string(value) != "1" {
			t.Errorf("within its View, a became %q", value)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if s.idle() != 0 {
		t.Error("a reader is kept that does not see the last update")
	}
	mustGet(t, s, "a", "2")
}

// bbolt waits for every reader before it maps a file that has outgrown its mapping.
func TestKeptReadersDoNotHoldUpAFileThatGrows(t *testing.T) {
	s := openKeys(t)
	big := strings.Repeat("v", maxValueBytes)
	for i := range 100 { // 6 MiB, and a mapping of 32 KiB to begin with
		mustPut(t, s, fmt.Sprint(i), big)
		mustGet(t, s, fmt.Sprint(i), big)
	}
}

// It uses no page again that a reader may see.
func TestKeptReadersDoNotLetTheFileGrow(t *testing.T) {
	s := openKeys(t)
	value := strings.Repeat("v", 1000)
	var grown int64
	for i := range 200 {
		mustPut(t, s, "a", value+fmt.Sprint(i))
		mustGet(t, s, "a", value+fmt.Sprint(i))
		if i == 20 {
			grown = sizeOf(t, s)
		}
	}
	if size := sizeOf(t, s); size > grown {
		t.Errorf("one record that was changed 200 times took the file from %d to %d bytes", grown, size)
	}
}

func sizeOf(t *testing.T, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestReadersAreKeptWithinABound(t *testing.T) {
	s := openKeys(t)
	mustPut(t, s, "a", "1")
	var begun, done sync.WaitGroup
	begun.Add(3 * keptMost)
	for range 3 * keptMost {
		done.Go(func() {
			_ = s.View(context.Background(), func(apikey.Reader) error {
				begun.Done()
				begun.Wait() // so that all read at once
				return nil
			})
		})
	}
	done.Wait()
	if s.idle() != keptMost {
		t.Errorf("%d readers are kept, want %d", s.idle(), keptMost)
	}
	mustPut(t, s, "a", "2")
	if s.idle() != 0 {
		t.Errorf("%d readers are kept after an update", s.idle())
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	s := openKeys(t)
	mustPut(t, s, "a", "1")
	key := []byte("a")
	get := func(r apikey.Reader) error {
		_, err := r.Get(apikey.TableKeys, key)
		return err
	}
	if n := testing.AllocsPerRun(1000, func() { _ = s.View(context.Background(), get) }); n > 0 {
		t.Errorf("a lookup makes %v allocations", n)
	}
}
