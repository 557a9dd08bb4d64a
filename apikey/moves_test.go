package apikey_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// awaitMoves flushes, and waits until so many changes of clients were told in all.
func (r *ring) awaitMoves(want int) []apikey.ClientChange {
	r.t.Helper()
	r.flush()
	for deadline := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
		r.seen.mu.Lock()
		moved := r.seen.moved
		r.seen.mu.Unlock()
		if len(moved) >= want || time.Now().After(deadline) {
			if len(moved) != want {
				r.t.Fatalf("told of %d changes of clients, want %d; the first are %+v", len(moved), want, moved[:min(3, len(moved))])
			}
			return moved
		}
	}
}

func TestKeyThatComesFromElsewhereIsToldOf(t *testing.T) {
	const v4, v6, curl = "192.0.2.7", "2001:db8:1:2::7", "curl/8.5.0"
	for name, c := range map[string]struct {
		address, userAgent   string // before
		address2, userAgent2 string
		network, product     bool
	}{
		"another network":           {v4, curl, "192.0.3.7", curl, true, false},
		"the same network":          {v4, curl, "192.0.2.250", curl, false, false},
		"another network of IPv6":   {v6, curl, "2001:db8:2:2::7", curl, true, false},
		"the same network of IPv6":  {v6, curl, "2001:db8:1:ffff::8", curl, false, false},
		"the other protocol":        {v4, curl, v6, curl, true, false},
		"the same, written as IPv6": {v4, curl, "::ffff:192.0.2.9", curl, false, false},
		"another program":           {v4, curl, v4, "Go-http-client/2.0", false, true},
		"another version":           {v4, curl, v4, "curl/9 (x)", false, false},
		"both":                      {v4, curl, v6, "python", true, true},
		"without a slash":           {v4, "My tool 1", v4, "My tool 2", false, false},
		"a longer name":             {v4, "curl", v4, "curly", false, true},
		"no address before":         {"", curl, v4, curl, false, false},
		"no address any more":       {v4, curl, "@", curl, false, false},
		"no program before":         {v4, "", v4, curl, false, false},
		"no program any more":       {v4, curl, v4, "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryStore(t, func(t *testing.T, r *ring) {
				made := r.issue(apikey.Operator("globex"), apikey.Issue{})
				r.use(made.Token, c.address, c.userAgent)
				first := r.clock.now()
				r.awaitMoves(0) // the first use of a key is none
				r.clock.advance(time.Second)
				r.use(made.Token, c.address2, c.userAgent2)
				if !c.network && !c.product {
					r.awaitMoves(0)
					if err := r.Close(); err != nil { // tells the rest
						t.Error(err)
					}
					r.seen.mu.Lock()
					defer r.seen.mu.Unlock()
					if len(r.seen.moved) != 0 || len(r.seen.untold) != 0 {
						t.Errorf("told %+v", r.seen.moved)
					}
					return
				}
				got := r.awaitMoves(1)[0]
				want := apikey.ClientChange{
					KeyID: made.Key.ID, OrganizationID: "globex", Network: c.network, UserAgent: c.product,
					Before: usage(first, 0, c.address, c.userAgent), After: usage(r.clock.now(), 0, c.address2, c.userAgent2),
				}
				if got != want {
					t.Errorf("told %+v\nwant %+v", got, want)
				}
				r.flush()
				r.awaitMoves(1) // once
			})
		})
	}
}

func TestKeyThatMovesAllTheTimeIsToldOfOnceAnHour(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made, other := r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{})
	r.use(made.Token, "192.0.2.1", "ua")
	r.use(other.Token, "192.0.2.1", "ua")
	r.awaitMoves(0)
	for i := range 120 { // two hours
		r.clock.advance(time.Minute)
		r.use(made.Token, fmt.Sprintf("198.51.%d.1", i), "ua")
		r.flush()
	}
	moved := r.awaitMoves(2)
	if d := moved[1].After.LastUsedAt.Sub(moved[0].After.LastUsedAt); d != time.Hour {
		t.Errorf("told of again after %v", d)
	}
	if moved[1].Before.LastUsedIP.String() != "198.51.59.1" {
		t.Errorf("moved from %v", moved[1].Before.LastUsedIP)
	}
	r.use(other.Token, "203.0.113.1", "ua") // is not kept quiet by it
	r.awaitMoves(3)
	r.clock.advance(time.Hour)
	r.flush()
	if fmt.Sprint(r.seen.untold) != "[1 59 58]" { // the first one at once, then each hour
		t.Errorf("told that %v were untold", r.seen.untold)
	}
}

func TestUseUnderAClockThatWasAheadHidesNobodyAfterwards(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		r.clock.advance(1000 * time.Hour)
		r.use(made.Token, "192.0.2.1", "owner")
		r.awaitMoves(0)
		r.clock.advance(-1000 * time.Hour)
		r = openRing(t, keepOpen{r.store.Store}) // without what the index of the first one holds
		r.use(made.Token, "198.51.100.1", "thief")
		if moved := r.awaitMoves(1); moved[0].After.LastUsedUserAgent != "thief" {
			t.Errorf("told of %+v", moved[0])
		}
		if got := r.get(operator, made.Key.ID).Usage; got.LastUsedUserAgent != "thief" || got.LastUsedIP.String() != "198.51.100.1" || got.Count != 2 {
			t.Errorf("%+v", got)
		}
	})
}

func TestWhatIsToldOfMovingKeysIsBounded(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	const most = 1000
	made := issueMany(t, r.Keyring, most+200)
	everyUse := func(address string) {
		for _, m := range made {
			r.use(m.Token, address, "ua")
		}
	}
	everyUse("192.0.2.1")
	r.awaitMoves(0)
	everyUse("198.51.100.1")
	r.awaitMoves(most)
	everyUse("203.0.113.1")
	r.awaitMoves(most)
	r.clock.advance(time.Hour)
	everyUse("192.0.2.1")
	r.awaitMoves(2 * most)
	r.flush()
	if fmt.Sprint(r.seen.untold) != "[200 1200]" { // a flush reports those before it, once an hour
		t.Errorf("told that %v were untold", r.seen.untold)
	}
}

// Neither of a policy that records no clients, nor after one.
func TestClientsThatAreNotRecordedAreNotToldOf(t *testing.T) {
	for _, policy := range []apikey.UsageMode{apikey.UsageOff, apikey.UsageTime} {
		r := openRing(t, storagetest.NewMemory())
		k, err := r.With(apikey.Policy{Usage: policy}, r.seen)
		if err != nil {
			t.Fatal(err)
		}
		made := r.issue(operator, apikey.Issue{})
		use := func(k *apikey.Keyring, address string) {
			r.clock.advance(time.Second)
			v := r.verify(made.Token, apikey.ReasonNone)
			k.Use(&v, address, "ua "+strings.Repeat("x", len(address)))
			r.flush()
		}
		use(r.Keyring, "192.0.2.1")
		use(k, "198.51.100.1")
		use(k, "203.0.113.100")
		r.awaitMoves(0)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if len(r.seen.moved) != 0 || len(r.seen.untold) != 0 {
			t.Errorf("told of %+v", r.seen.moved)
		}
	}
}

// What could not be written is not told of until it is.
func TestMoveIsToldOfWhenItIsInTheStore(t *testing.T) {
	store := &uncommitted{Store: storagetest.NewMemory()}
	r := openRing(t, store)
	made := r.issue(operator, apikey.Issue{})
	r.use(made.Token, "192.0.2.1", "ua")
	r.awaitMoves(0)
	r.use(made.Token, "198.51.100.1", "ua")
	store.fails.Store(true)
	for range 3 {
		if err := r.Flush(ctx); err == nil {
			t.Fatal("the flush did not fail")
		}
	}
	store.fails.Store(false)
	if got := r.awaitMoves(1)[0].Before.LastUsedIP.String(); got != "192.0.2.1" {
		t.Errorf("moved from %s", got)
	}
	r.clock.advance(time.Hour)
	r.flush()
	if len(r.seen.untold) != 0 {
		t.Errorf("told that %v were untold", r.seen.untold)
	}
}

// uncommitted runs updates, and may not bring them to an end.
type uncommitted struct {
	apikey.Store
	fails atomic.Bool
}

func (s *uncommitted) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	return s.Store.Update(ctx, func(tx apikey.Tx) error {
		if err := fn(tx); err != nil || !s.fails.Load() {
			return err
		}
		return apikey.ErrUnavailable
	})
}
