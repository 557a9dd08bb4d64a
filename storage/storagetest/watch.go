package storagetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// RunWatch tests the contract of [apikey.Watcher]. It calls open for every
// subtest, for two stores with the same records, as two gateways open them. Both
// implement Watcher, and the subtest closes them.
func RunWatch(t *testing.T, open func(t *testing.T) (one, other apikey.Store)) {
	for _, g := range watching {
		t.Run(g.name, func(t *testing.T) {
			one, other := open(t)
			t.Cleanup(func() {
				one.Close()
				other.Close()
			})
			g.test(t, kit{one}, kit{other})
		})
	}
}

var watching = []struct {
	name string
	test func(t *testing.T, one, other kit)
}{
	{"what either store wrote is seen in both", func(t *testing.T, one, other kit) {
		one.put(t, keys, "a", "1")
		other.want(t, keys, "a", "1")
		other.put(t, keys, "a", "2")
		one.want(t, keys, "a", "2")
		parallel(8, func(i int) {
			s := one
			if i%2 == 0 {
				s = other
			}
			for range 10 {
				s.update(t, add(usage, "counter", 1))
			}
		})
		one.want(t, usage, "counter", "80")
	}},
	{"every change is reported, in order", func(t *testing.T, one, other kit) {
		one.put(t, keys, "before", "1")
		w := watch(t, one)
		one.put(t, keys, "own", "1")
		other.put(t, keys, "foreign", "1")
		other.put(t, usage, "foreign", "1")
		one.delete(t, keys, "foreign")
		other.delete(t, keys, "own")
		for _, want := range []string{"keys own", "keys foreign", "usage foreign", "keys foreign", "keys own"} {
			if got := w.next(); got != want {
				t.Fatalf("reported %q, want %q", got, want)
			}
		}
	}},
	{"a change is there to be read when it is reported", func(t *testing.T, one, other kit) {
		const n = 20
		reported := make(chan string)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		synced := make(chan struct{})
		go func() {
			_ = watcher(t, one).Watch(ctx, func() { close(synced) }, func(table apikey.Table, key []byte) {
				value := one.get(t, table, string(key))
				select {
				case reported <- value:
				case <-ctx.Done():
				}
			})
		}()
		within(t, synced)
		for i := range n {
			other.put(t, keys, fmt.Sprint(i), fmt.Sprint(i))
			if got := within(t, reported); got != fmt.Sprint(i) {
				t.Fatalf("when the change was reported, its value was %q, want %d", got, i)
			}
		}
	}},
	{"what counts for nothing is not reported", func(t *testing.T, one, other kit) {
		w := watch(t, one)
		_ = other.Update(context.Background(), func(tx apikey.Tx) error {
			return errors.Join(tx.Put(keys, []byte("failed"), nil), errOurs)
		})
		other.put(t, keys, "after", "1")
		if got := w.next(); got != "keys after" {
			t.Errorf("reported %q", got)
		}
	}},
	{"Watch ends with its context", func(t *testing.T, one, other kit) {
		w := watch(t, one)
		w.cancel()
		if err := within(t, w.ended); !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v, want the error of its context", err)
		}
		other.put(t, keys, "a", "1")
		w = watch(t, one)
		other.put(t, keys, "b", "1")
		if got := w.next(); got != "keys b" {
			t.Errorf("the second Watch reported %q first, want keys b", got)
		}
	}},
	{"Watch ends with its store", func(t *testing.T, one, other kit) {
		w := watch(t, one)
		if err := one.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if err := within(t, w.ended); !errors.Is(err, apikey.ErrUnavailable) {
			t.Errorf("the running Watch returned %v", err)
		}
		if err := watcher(t, one).Watch(context.Background(), func() {}, func(apikey.Table, []byte) {}); !errors.Is(err, apikey.ErrUnavailable) {
			t.Errorf("a later Watch returned %v", err)
		}
		other.put(t, keys, "a", "1")
	}},
}

func watcher(t *testing.T, s kit) apikey.Watcher {
	t.Helper()
	w, ok := s.Store.(apikey.Watcher)
	if !ok {
		t.Fatalf("%T does not implement apikey.Watcher", s.Store)
	}
	return w
}

// watched is a Watch that runs, and what it has reported.
type watched struct {
	t       *testing.T
	cancel  context.CancelFunc
	reports chan string
	ended   chan error
}

// watch starts a Watch and returns when it is synced.
func watch(t *testing.T, s kit) watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	w := watched{t, cancel, make(chan string, 100), make(chan error, 1)}
	synced := make(chan struct{})
	go func() {
		w.ended <- watcher(t, s).Watch(ctx, func() { close(synced) }, func(table apikey.Table, key []byte) {
			w.reports <- fmt.Sprintf("%s %s", table, key)
		})
	}()
	within(t, synced)
	return w
}

func (w watched) next() string {
	w.t.Helper()
	return within(w.t, w.reports)
}

// within returns what comes, and fails the test when nothing does. Its bound is
// there to end a test that has failed, not to measure.
func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came within 30 s")
	}
	return v
}
