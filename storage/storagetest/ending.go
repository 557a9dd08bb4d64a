package storagetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

var ending = []guarantee{
	{"a context that has ended is answered with its error", func(t *testing.T, s kit) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.View(ctx, func(apikey.Reader) error {
			t.Error("View ran its function")
			return nil
		}); !errors.Is(err, context.Canceled) {
			t.Errorf("View answered %v", err)
		}
		if err := s.Update(ctx, func(tx apikey.Tx) error {
			t.Error("Update ran its function")
			return nil
		}); !errors.Is(err, context.Canceled) {
			t.Errorf("Update answered %v", err)
		}
	}},
	{"an update whose context ends while it waits is in force or not, as it says", func(t *testing.T, s kit) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		waiting, gone := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(gone)
			<-waiting
			err := s.Update(ctx, func(tx apikey.Tx) error { return tx.Put(keys, []byte("late"), []byte("1")) })
			switch {
			case err == nil:
				s.want(t, keys, "late", "1")
			case errors.Is(err, context.Canceled):
				s.want(t, keys, "late", absent)
			default:
				t.Errorf("answered %v", err)
			}
		}()
		s.update(t, func(tx apikey.Tx) error {
			select {
			case waiting <- struct{}{}:
			default: // the function ran before
			}
			for range 100 {
				runtime.Gosched()
			}
			cancel()
			return tx.Put(keys, []byte("early"), []byte("1"))
		})
		<-gone
		s.want(t, keys, "early", "1")
	}},
	{"Close waits for a View that runs", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1")
		closed := make(chan struct{})
		var ended atomic.Bool
		s.view(t, func(r apikey.Reader) error {
			go func() {
				defer close(closed)
				if err := s.Close(); err != nil {
					t.Errorf("closing: %v", err)
				}
				if !ended.Load() {
					t.Error("Close returned while a View ran")
				}
			}()
			for range 500 {
				if got, err := get(r, keys, "a"); got != "1" || err != nil {
					t.Errorf("while the store closes, the View reads %q, %v", got, err)
					break
				}
				runtime.Gosched()
			}
			ended.Store(true)
			return nil
		})
		<-closed
	}},
	{"Close waits for an Update that runs", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1")
		var (
			closed  = make(chan struct{})
			begun   atomic.Bool
			through atomic.Bool
		)
		s.update(t, func(tx apikey.Tx) error {
			through.Store(false)
			if begun.CompareAndSwap(false, true) {
				go func() {
					defer close(closed)
					if err := s.Close(); err != nil {
						t.Errorf("closing: %v", err)
					}
					if !through.Load() {
						t.Error("Close returned while an Update ran")
					}
				}()
			}
			for range 500 {
				if got, err := get(tx, keys, "a"); got != "1" || err != nil {
					t.Errorf("while the store closes, the Update reads %q, %v", got, err)
					break
				}
				runtime.Gosched()
			}
			through.Store(true)
			return tx.Put(keys, []byte("b"), nil)
		})
		<-closed
	}},
	{"after Close every call is unavailable", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1")
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			if err := s.View(context.Background(), func(apikey.Reader) error {
				t.Error("View ran its function")
				return nil
			}); !errors.Is(err, apikey.ErrUnavailable) {
				t.Errorf("View answered %v", err)
			}
			if err := s.Update(context.Background(), func(apikey.Tx) error {
				t.Error("Update ran its function")
				return nil
			}); !errors.Is(err, apikey.ErrUnavailable) {
				t.Errorf("Update answered %v", err)
			}
		}
	}},
	{"transactions that meet Close succeed or are unavailable", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1")
		var closed atomic.Bool
		parallel(9, func(i int) {
			for n, after := 0, closed.Load(); ; n, after = n+1, closed.Load() {
				var err error
				switch {
				case i == 0 && n == 20:
					if err := s.Close(); err != nil {
						t.Errorf("closing: %v", err)
					}
					closed.Store(true)
				case i%2 == 0:
					err = s.View(context.Background(), func(r apikey.Reader) error {
						if got, err := get(r, keys, "a"); got != "1" || err != nil {
							t.Errorf("a View reads %q, %v", got, err)
						}
						return nil
					})
				default:
					err = s.Update(context.Background(), func(tx apikey.Tx) error {
						return tx.Put(keys, fmt.Appendf(nil, "%d/%d", i, n), nil)
					})
				}
				switch {
				case errors.Is(err, apikey.ErrUnavailable):
					return
				case err != nil || after:
					t.Errorf("answered %v, closed: %v", err, after)
					return
				}
			}
		})
	}},
}
