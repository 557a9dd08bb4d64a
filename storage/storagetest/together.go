package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

var together = []guarantee{
	{"concurrent updates of one record lose nothing", func(t *testing.T, s kit) {
		const callers, each = 16, 20
		parallel(callers, func(int) {
			for range each {
				s.update(t, add(usage, "counter", 1))
			}
		})
		s.want(t, usage, "counter", fmt.Sprint(callers*each))
	}},
	{"no update acts on what another has changed meanwhile", func(t *testing.T, s kit) {
		// Either of two may leave as long as the other stays. Updates that
		// read both and write one must not both see the other one stay.
		for round := range 20 {
			left, right := fmt.Sprint("left", round), fmt.Sprint("right", round)
			s.put(t, keys, left, "1", right, "1")
			parallel(4, func(i int) {
				mine := left
				if i%2 == 1 {
					mine = right
				}
				s.update(t, func(tx apikey.Tx) error {
					l, err := number(tx, keys, left)
					if err != nil {
						return err
					}
					r, err := number(tx, keys, right)
					if err != nil || l+r < 2 {
						return err
					}
					return putNumber(tx, keys, mine, 0)
				})
			})
			if l, r := s.get(t, keys, left), s.get(t, keys, right); l == r {
				t.Fatalf("round %d left %s and %s, want one of each", round, l, r)
			}
		}
	}},
	{"no update acts on a range that another has changed meanwhile", func(t *testing.T, s kit) {
		// Whoever finds the range with room takes a place of its own in it.
		const places = 5
		parallel(12, func(i int) {
			s.update(t, func(tx apikey.Tx) error {
				taken := 0
				err := tx.Scan(keys, apikey.Range{From: []byte("place "), To: []byte("place!")}, func(_, _ []byte) bool {
					taken++
					return true
				})
				if err != nil || taken >= places {
					return err
				}
				return tx.Put(keys, fmt.Appendf(nil, "place %d", i), nil)
			})
		})
		if got := len(s.scan(t, keys, apikey.Range{})); got != places {
			t.Errorf("%d places are taken, want %d", got, places)
		}
	}},
	{"a failed update leaves nothing among others that succeed", func(t *testing.T, s kit) {
		const callers, each = 12, 10
		parallel(callers, func(i int) {
			for round := range each {
				fails := (i+round)%2 == 0
				err := s.Update(context.Background(), func(tx apikey.Tx) error {
					if err := add(usage, "counter", 1)(tx); err != nil {
						return err
					}
					if err := tx.Put(keys, fmt.Appendf(nil, "%d/%d", i, round), fmt.Append(nil, fails)); err != nil {
						return err
					}
					if fails {
						return errOurs
					}
					return nil
				})
				if fails && err != errOurs || !fails && err != nil {
					t.Errorf("failing: %t, answered: %v", fails, err)
				}
			}
		})
		s.want(t, usage, "counter", fmt.Sprint(callers*each/2))
		left := s.scan(t, keys, apikey.Range{})
		if len(left) != callers*each/2 {
			t.Errorf("%d records are left, want %d", len(left), callers*each/2)
		}
		for _, pair := range left {
			if pair[len(pair)-1] != 'e' || pair[len(pair)-5:] != "false" {
				t.Errorf("%s is left by an update that failed", pair)
			}
		}
	}},
	{"a panic reaches its caller and harms nobody else", func(t *testing.T, s kit) {
		const callers, each = 12, 10
		parallel(callers, func(i int) {
			for range each {
				if i%3 > 0 {
					s.update(t, add(usage, "counter", 1))
					continue
				}
				if got := panicOf(func() {
					_ = s.Update(context.Background(), func(tx apikey.Tx) error {
						_ = tx.Put(keys, []byte("half done"), nil)
						panic(errOurs)
					})
				}); got != errOurs {
					t.Errorf("the panic of an update came back as %v", got)
				}
				if got := panicOf(func() {
					_ = s.View(context.Background(), func(r apikey.Reader) error {
						return r.Scan(usage, apikey.Range{}, func(_, _ []byte) bool { panic(errOurs) })
					})
				}); got != errOurs && got != nil {
					t.Errorf("the panic of a view came back as %v", got)
				}
			}
		})
		s.want(t, usage, "counter", fmt.Sprint(callers*each*2/3))
		s.want(t, keys, "half done", absent)
	}},
	{"a View sees every update that has returned", func(t *testing.T, s kit) {
		var returned atomic.Int64
		parallel(8, func(i int) {
			mine := fmt.Sprint("counter of ", i)
			for round := range 20 {
				if i%2 == 0 {
					s.update(t, add(usage, "shared", 1))
					returned.Add(1)
					s.update(t, add(usage, mine, 1))
				}
				least := int(returned.Load())
				s.view(t, func(r apikey.Reader) error {
					if got, err := number(r, usage, "shared"); err != nil || got < least {
						t.Errorf("%d updates have returned, the view sees %d, %v", least, got, err)
					}
					if got, err := number(r, usage, mine); i%2 == 0 && (err != nil || got != round+1) {
						t.Errorf("the view sees %d of its caller's %d updates, %v", got, round+1, err)
					}
					return nil
				})
			}
		})
	}},
	{"a View is one state, whatever updates run", func(t *testing.T, s kit) {
		const whole = 1000
		s.put(t, keys, "part", "1000")
		s.put(t, usage, "part", "0")
		parallel(6, func(i int) {
			for range 25 {
				if i%2 == 0 {
					s.update(t, func(tx apikey.Tx) error {
						return errors.Join(add(keys, "part", -i-1)(tx), add(usage, "part", i+1)(tx))
					})
					continue
				}
				s.view(t, func(r apikey.Reader) error {
					here, err := number(r, keys, "part")
					if err != nil {
						return err
					}
					there := 0
					if err := r.Scan(usage, apikey.Range{}, func(_, value []byte) bool {
						_, err = fmt.Sscanf(string(value), "%d", &there)
						return true
					}); err != nil {
						return err
					}
					if here+there != whole {
						t.Errorf("a view sees %d and %d, together not %d", here, there, whole)
					}
					return err
				})
			}
		})
	}},
}

func panicOf(fn func()) (value any) {
	defer func() { value = recover() }()
	fn()
	return nil
}
