package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// RunDurable tests that records outlive the store that wrote them. It calls
// open with an empty directory for a new store, and again with the same one,
// after the store was closed, for a store with the same records.
func RunDurable(t *testing.T, open func(t *testing.T, dir string) apikey.Store) {
	for _, g := range durable {
		t.Run(g.name, func(t *testing.T) {
			dir := t.TempDir()
			g.test(t, func(use func(s kit)) {
				s := kit{open(t, dir)}
				defer func() {
					if err := s.Close(); err != nil {
						t.Errorf("closing: %v", err)
					}
				}()
				use(s)
			})
		})
	}
}

// In a durable test, each call of session opens the store and closes it again.
var durable = []struct {
	name string
	test func(t *testing.T, session func(use func(s kit)))
}{
	{"what was written and deleted stays so", func(t *testing.T, session func(func(kit))) {
		big := strings.Repeat("\x00\xff", maxValue/2)
		session(func(s kit) {
			for _, table := range apikey.Tables() {
				s.put(t, table, "name", table.String(), "doomed", "1", "empty", "")
			}
			s.put(t, keys, "changed", "1", "big", big)
			s.put(t, keys, "changed", "2")
		})
		session(func(s kit) {
			for _, table := range apikey.Tables() {
				s.want(t, table, "doomed", "1")
				s.delete(t, table, "doomed")
			}
		})
		session(func(s kit) {
			for _, table := range apikey.Tables() {
				want := []string{"empty=", "name=" + table.String()}
				if table == keys {
					want = []string{"big=" + big, "changed=2", "empty=", "name=keys"}
				}
				if got := s.scan(t, table, apikey.Range{}); !slices.Equal(got, want) {
					t.Errorf("%s has %d records, want %d", table, len(got), len(want))
				}
				s.want(t, table, "empty", "")
			}
		})
	}},
	{"what failed does not come back", func(t *testing.T, session func(func(kit))) {
		session(func(s kit) {
			s.put(t, keys, "a", "1")
			if err := s.Update(context.Background(), func(tx apikey.Tx) error {
				return errors.Join(tx.Put(keys, []byte("b"), nil), tx.Delete(keys, []byte("a")), errOurs)
			}); err == nil {
				t.Error("it succeeded")
			}
			_ = panicOf(func() {
				_ = s.Update(context.Background(), func(tx apikey.Tx) error {
					_ = tx.Put(keys, []byte("b"), nil)
					panic(errOurs)
				})
			})
		})
		session(func(s kit) {
			s.want(t, keys, "a", "1")
			s.want(t, keys, "b", absent)
		})
	}},
	{"an update that succeeded while the store closed is there", func(t *testing.T, session func(func(kit))) {
		var (
			mu     sync.Mutex
			acked  []string
			enough = make(chan struct{})
		)
		session(func(s kit) {
			go parallel(8, func(i int) {
				for n := 0; ; n++ {
					key := fmt.Sprintf("%d/%d", i, n)
					err := s.Update(context.Background(), func(tx apikey.Tx) error { return tx.Put(keys, []byte(key), nil) })
					mu.Lock()
					if err == nil {
						if acked = append(acked, key+"="); len(acked) == 40 {
							close(enough)
						}
					}
					mu.Unlock()
					if err != nil {
						return
					}
				}
			})
			<-enough
		})
		mu.Lock()
		defer mu.Unlock()
		session(func(s kit) {
			there := s.scan(t, keys, apikey.Range{})
			for _, key := range acked {
				if !slices.Contains(there, key) {
					t.Errorf("%s is gone", key)
				}
			}
		})
	}},
	{"many records stay in order", func(t *testing.T, session func(func(kit))) {
		const n, sessions = 1200, 3
		var want []string
		for i := range n {
			want = append(want, fmt.Sprintf("%06d=%s", i, strings.Repeat("v", i%300)))
		}
		for part := range sessions {
			session(func(s kit) {
				s.update(t, func(tx apikey.Tx) error {
					for i := part; i < n; i += sessions {
						key, value, _ := strings.Cut(want[i], "=")
						if err := tx.Put(keys, []byte(key), []byte(value)); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
		session(func(s kit) {
			if got := s.scan(t, keys, apikey.Range{}); !slices.Equal(got, want) {
				t.Errorf("there are %d records, want %d in order", len(got), len(want))
			}
		})
	}},
}
