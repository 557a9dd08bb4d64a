// Package storagetest is the contract of a storage driver as a test suite. A
// driver shows that it is one by passing [Run]; one that keeps its records over
// a restart, by passing [RunDurable] too; one whose store other processes write,
// by passing [RunWatch].
//
// The package also holds two stores for the tests of whoever uses a store:
// [NewMemory], the plainest one that keeps the contract, and [Cluster], the most
// awkward one that does.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// The sizes that every driver must take.
const (
	maxKey   = 512
	maxValue = 64 << 10
)

// Run tests the contract of [apikey.Store]. It calls open for every subtest, for
// a store that is empty and the subtest's own, and closes it.
func Run(t *testing.T, open func(t *testing.T) apikey.Store) {
	for _, part := range [][]guarantee{reading, writing, together, ending} {
		for _, g := range part {
			t.Run(g.name, func(t *testing.T) {
				s := open(t)
				t.Cleanup(func() { s.Close() })
				g.test(t, kit{s})
			})
		}
	}
}

type guarantee struct {
	name string
	test func(t *testing.T, s kit)
}

// kit is a store whose methods fail the test, for what is not under test.
type kit struct{ apikey.Store }

// The tables that the tests write. What the others mean to the Keyring does not
// matter here either.
const (
	keys  = apikey.TableKeys
	usage = apikey.TableUsage
)

func (s kit) put(t *testing.T, table apikey.Table, pairs ...string) {
	t.Helper()
	s.update(t, func(tx apikey.Tx) error {
		for pair := range slices.Chunk(pairs, 2) {
			if err := tx.Put(table, []byte(pair[0]), []byte(pair[1])); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s kit) delete(t *testing.T, table apikey.Table, key string) {
	t.Helper()
	s.update(t, func(tx apikey.Tx) error { return tx.Delete(table, []byte(key)) })
}

func (s kit) update(t *testing.T, fn func(apikey.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Errorf("updating: %v", err)
	}
}

func (s kit) view(t *testing.T, fn func(apikey.Reader) error) {
	t.Helper()
	if err := s.View(context.Background(), fn); err != nil {
		t.Errorf("viewing: %v", err)
	}
}

// get returns the value of key in a View of its own, and "-" for no value.
func (s kit) get(t *testing.T, table apikey.Table, key string) (value string) {
	t.Helper()
	s.view(t, func(r apikey.Reader) (err error) {
		value, err = get(r, table, key)
		return err
	})
	return value
}

func (s kit) want(t *testing.T, table apikey.Table, key, value string) {
	t.Helper()
	if got := s.get(t, table, key); got != value {
		t.Errorf("%s[%q] is %s, want %s", table, key, brief(got), brief(value))
	}
}

// scan returns what a scan visits in a View of its own, as "key=value".
func (s kit) scan(t *testing.T, table apikey.Table, r apikey.Range) (visited []string) {
	t.Helper()
	s.view(t, func(reader apikey.Reader) error {
		visited = nil
		return reader.Scan(table, r, func(key, value []byte) bool {
			visited = append(visited, fmt.Sprintf("%s=%s", key, value))
			return true
		})
	})
	return visited
}

const absent = "-"

func get(r apikey.Reader, table apikey.Table, key string) (string, error) {
	value, err := r.Get(table, []byte(key))
	if value == nil {
		return absent, err
	}
	return string(value), err
}

func brief(value string) string {
	if len(value) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", value[:40], len(value))
	}
	return fmt.Sprintf("%q", value)
}

// parallel runs fn on n goroutines that start together and waits for them.
func parallel(n int, fn func(i int)) {
	var (
		started = make(chan struct{})
		running sync.WaitGroup
	)
	for i := range n {
		running.Go(func() {
			<-started
			fn(i)
		})
	}
	close(started)
	running.Wait()
}

// number returns a value as a number, and zero for no value.
func number(r apikey.Reader, table apikey.Table, key string) (n int, err error) {
	text, err := get(r, table, key)
	if err == nil && text != absent {
		_, err = fmt.Sscanf(text, "%d", &n)
	}
	return n, err
}

func putNumber(tx apikey.Tx, table apikey.Table, key string, n int) error {
	return tx.Put(table, []byte(key), fmt.Append(nil, n))
}

// add returns an update that adds n to a number.
func add(table apikey.Table, key string, n int) func(apikey.Tx) error {
	return func(tx apikey.Tx) error {
		old, err := number(tx, table, key)
		if err != nil {
			return err
		}
		return putNumber(tx, table, key, old+n)
	}
}

var errOurs = errors.New("an error of the function's own")
