package apikey_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func (r *ring) use(token, address, userAgent string) {
	r.t.Helper()
	v := r.verify(token, apikey.ReasonNone)
	r.Use(&v, address, userAgent)
}

func (r *ring) wantUsage(id apikey.ID, want apikey.Usage) {
	r.t.Helper()
	if got := r.get(operator, id).Usage; got != want {
		r.t.Errorf("Get tells of usage %+v, want %+v", got, want)
	}
	page, err := r.List(ctx, operator, apikey.ListQuery{Limit: 100})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, key := range page.Keys {
		if key.ID == id && key.Usage != want {
			r.t.Errorf("List tells of usage %+v, want %+v", key.Usage, want)
		}
	}
}

func usage(at time.Time, count uint64, address, userAgent string) apikey.Usage {
	ip, _ := netip.ParseAddr(address)
	return apikey.Usage{LastUsedAt: at, LastUsedIP: ip, LastUsedUserAgent: userAgent, Count: count}
}

func TestUsageIsToldAtOnceAndNotOnlyAfterTheFlush(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		r.wantUsage(made.Key.ID, apikey.Usage{})
		count := uint64(0)
		for i := range 40 {
			r.clock.advance(time.Duration(i) * time.Millisecond)
			address, agent := fmt.Sprint("192.0.2.", i/3), fmt.Sprint("ua", i/4)
			r.use(made.Token, address, agent)
			count++
			r.wantUsage(made.Key.ID, usage(r.clock.now(), count, address, agent))
			if i%7 == 6 {
				r.flush()
				r.wantUsage(made.Key.ID, usage(r.clock.now(), count, address, agent))
			}
		}
		if key := r.revoke(operator, made.Key.ID); key.Usage.Count != count {
			t.Errorf("the revoked key tells of %d uses, want %d", key.Usage.Count, count)
		}
		r.flush()
		r.verify(made.Token, apikey.ReasonRevoked) // the flush has not brought it back
		r.wantUsage(made.Key.ID, r.get(operator, made.Key.ID).Usage)
	})
}

func TestAddressIsKeptAsAnAddressOrNotAtAll(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "2001:db8::1": "2001:db8::1", "::ffff:192.0.2.7": "192.0.2.7", "fe80::1%eth0": "fe80::1",
		"": "", "@": "", "192.0.2.7:99": "", "[::1]:99": "", "localhost": "", "1.2.3": "", "1.2.3.4, 5.6.7.8": "", "\x00": "",
	} {
		r.clock.advance(time.Second)
		r.use(made.Token, address, "ua")
		for range 2 {
			got := r.get(operator, made.Key.ID).Usage.LastUsedIP
			if got.IsValid() != (want != "") || want != "" && got.String() != want {
				t.Errorf("%q is kept as %v, want %q", address, got, want)
			}
			r.flush()
		}
	}
}

func TestNoTokenInAUserAgentIsKept(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made, other := r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{})
		for name, c := range map[string]struct{ sent, kept string }{
			"the token":                   {made.Token, "ak_REDACTED"},
			"two in a text":               {"sdk/1.0 (" + made.Token + ", " + other.Token + ")", "sdk/1.0 (ak_REDACTED, ak_REDACTED)"},
			"without its checksum":        {made.Token[:len(made.Token)-6], "ak_REDACTED"},
			"behind another":              {made.Token + "_" + other.Token, "ak_REDACTED_ak_REDACTED"},
			"with what is dropped inside": {"ak_\x01" + made.Token[3:], "ak_REDACTED"},
			"cut to its greater part":     {strings.Repeat("x", 256-60) + made.Token, strings.Repeat("x", 256-60) + "ak_REDACTED"},
		} {
			r.clock.advance(time.Second)
			r.use(made.Token, "192.0.2.1", c.sent)
			for range 2 {
				if got := r.get(operator, made.Key.ID).Usage.LastUsedUserAgent; got != c.kept {
					t.Errorf("%s: %q is told, want %q", name, got, c.kept)
				}
				r.flush()
			}
			r.use(made.Token, "192.0.2.1", "ua")
		}
		secret := fmt.Sprintf("%x", made.Token[len("ak_")+22:][:20])
		for key, value := range dump(t, r.store.Store) {
			if strings.Contains(value, secret) {
				t.Errorf("the store has a secret under %s", key)
			}
		}
	})
}

// In a bubble, with the default clock: what stands in the store, and when.
func TestWhatIsNewIsWrittenAtOnceAndANewTimeAloneOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewMemory()
		k, err := apikey.Open(store, apikey.Settings{}, apikey.Policy{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		reader := openRing(t, keepOpen{store}) // knows what is in the store, and no more
		made, err := k.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
		if err != nil {
			t.Fatal(err)
		}
		use := func(address, agent string) time.Time {
			v, err := k.Verify(ctx, made.Token)
			if err != nil || !v.Allowed() {
				t.Fatal(v.Reason, err)
			}
			k.Use(&v, address, agent)
			return k.Now().Truncate(time.Millisecond).UTC()
		}
		stored := func() apikey.Usage {
			synctest.Wait()
			return reader.get(operator, made.Key.ID).Usage
		}
		tick := func() { time.Sleep(time.Second + time.Millisecond) } // one flush

		first := use("192.0.2.1", "one")
		tick()
		if got := stored(); got != usage(first, 1, "192.0.2.1", "one") {
			t.Errorf("a flush after the first use: %+v", got)
		}
		agent := use("192.0.2.1", "two")
		tick()
		if got := stored(); got != usage(agent, 2, "192.0.2.1", "two") {
			t.Errorf("a flush after a new user agent: %+v", got)
		}
		address := use("192.0.2.2", "two")
		tick()
		if got := stored(); got != usage(address, 3, "192.0.2.2", "two") {
			t.Errorf("a flush after a new address: %+v", got)
		}
		count, writes := uint64(3), 0
		for range 180 {
			last := use("192.0.2.2", "two")
			count++
			before := stored()
			tick()
			got := stored()
			if got.Count != before.Count {
				writes++
			}
			if behind := last.Sub(got.LastUsedAt); behind > time.Minute {
				t.Fatalf("the store is %v behind", behind)
			}
			if got, err := k.Get(ctx, operator, made.Key.ID); err != nil || got.Usage != usage(last, count, "192.0.2.2", "two") {
				t.Fatalf("meanwhile Get tells of %+v, %v", got.Usage, err)
			}
		}
		if writes < 3 || writes > 4 {
			t.Errorf("%d writes in three minutes in which only the time moved, want one a minute", writes)
		}
		for range 60 {
			tick() // nobody uses the key any more
		}
		if got := stored(); got.Count != count {
			t.Errorf("the last use was a minute ago, and %d uses were not written: %+v", count-got.Count, got)
		}
		back := use("192.0.2.1", "one")
		tick()
		if got := stored(); got != usage(back, count+1, "192.0.2.1", "one") {
			t.Errorf("a flush after a client that was here before: %+v", got)
		}
	})
}

// A gateway that has been started again knows no client of any key. It finds them in
// the store.
func TestNewTimeAloneWaitsAfterARestartTooAndIsWrittenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewMemory()
		reader := openRing(t, keepOpen{store})
		var made apikey.Issued
		run := func(wantStored, wantTold uint64) {
			t.Helper()
			k, err := apikey.Open(keepOpen{store}, apikey.Settings{}, apikey.Policy{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if made.Token == "" {
				if made, err = k.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second + time.Millisecond) // the first flush begins a sweep
			v, err := k.Verify(ctx, made.Token)
			if err != nil || !v.Allowed() {
				t.Fatal(v.Reason, err)
			}
			k.Use(&v, "192.0.2.1", "ua")
			time.Sleep(time.Second + time.Millisecond) // another flush
			synctest.Wait()
			if got := reader.get(operator, made.Key.ID).Usage.Count; got != wantStored {
				t.Errorf("a flush after the use the store has %d, want %d", got, wantStored)
			}
			if key, err := k.Get(ctx, operator, made.Key.ID); err != nil || key.Usage.Count != wantTold {
				t.Errorf("meanwhile Get tells of %d uses, want %d; %v", key.Usage.Count, wantTold, err)
			}
		}
		run(1, 1)
		run(1, 2)
		run(2, 3)
		if got := reader.get(operator, made.Key.ID).Usage.Count; got != 3 {
			t.Errorf("the store has %d uses at the end, want 3", got)
		}
	})
}

func TestResolutionAndIntervalCanBeSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &observer{}
		k, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{FlushInterval: 10 * time.Second, UsageResolution: 20 * time.Second}, apikey.Policy{}, seen)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		made, err := k.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			v, err := k.Verify(ctx, made.Token)
			if err != nil {
				t.Fatal(err)
			}
			k.Use(&v, "192.0.2.1", "ua")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		seen.mu.Lock()
		defer seen.mu.Unlock()
		if seen.flushed < 4 || seen.flushed > 5 {
			t.Errorf("100 seconds of use made %d writes, want one each 20 seconds", seen.flushed)
		}
	})
}

// slow is a store whose updates take some time, and that remembers when.
type slow struct {
	apikey.Store
	mu           sync.Mutex
	takes        time.Duration
	began, ended []time.Time
}

func (s *slow) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = append(s.began, time.Now())
	defer func() { s.ended = append(s.ended, time.Now()) }()
	time.Sleep(s.takes)
	return s.Store.Update(ctx, fn)
}

// from sets what updates take from now on, and returns when those before were.
func (s *slow) from(takes time.Duration) (began, ended []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	began, ended, s.takes, s.began, s.ended = s.began, s.ended, takes, nil, nil
	return began, ended
}

func TestLongFlushLeavesTimeBetweenItsSlicesWithinTheInterval(t *testing.T) {
	const keys, parts, interval = 3000, 3, 10 * time.Second
	for name, c := range map[string]struct{ takes, rests time.Duration }{
		"a quick store":             {takes: 100 * time.Millisecond, rests: 100 * time.Millisecond},
		"a store with time to lose": {takes: 2 * time.Second, rests: 2 * time.Second},
		"one with none":             {takes: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &slow{Store: storagetest.NewMemory()}
				k, err := apikey.Open(store, apikey.Settings{FlushInterval: interval, Capacity: 1 << 15}, apikey.Policy{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer k.Close()
				made, err := k.IssueMany(ctx, operator, slices.Repeat([]apikey.Issue{{Name: "n", UserID: "u"}}, keys))
				if err != nil {
					t.Fatal(err)
				}
				for i := range made {
					v, err := k.Verify(ctx, made[i].Token)
					if err != nil {
						t.Fatal(err)
					}
					k.Use(&v, "192.0.2.1", "ua")
				}
				store.from(c.takes)
				time.Sleep(2*interval - time.Nanosecond)
				synctest.Wait()
				began, ended := store.from(0)
				if len(ended) != parts {
					t.Fatalf("%d slices were written, want %d", len(ended), parts)
				}
				if pause := began[1].Sub(ended[0]); pause != c.rests {
					t.Errorf("%v between two slices, want %v", pause, c.rests)
				}
				if took := ended[parts-1].Sub(began[0]); took > interval {
					t.Errorf("the flush took %v", took)
				}
			})
		})
	}
}

func TestCloseBringsAllUsageToTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	open := func() *ring {
		store, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return openRing(t, store)
	}
	first := open()
	made := first.issue(operator, apikey.Issue{})
	for range 3 {
		first.use(made.Token, "192.0.2.1", "ua")
	}
	first.flush()
	first.clock.advance(time.Second)
	first.use(made.Token, "192.0.2.1", "ua") // only the time is new: no hurry, but for Close
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open()
	second.verify(made.Token, apikey.ReasonNone)
	second.wantUsage(made.Key.ID, usage(first.clock.now(), 4, "192.0.2.1", "ua"))
	second.use(made.Token, "192.0.2.1", "ua") // with a clock that is behind
	second.flush()
	second.wantUsage(made.Key.ID, usage(first.clock.now(), 5, "192.0.2.1", "ua"))
}

func TestTimeOfLastUseNeverGoesBack(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		r.use(made.Token, "192.0.2.1", "ua")
		latest := r.clock.now()
		for range 3 {
			r.clock.advance(-time.Hour)
			r.use(made.Token, "192.0.2.1", "ua")
			if got := r.get(operator, made.Key.ID).Usage.LastUsedAt; !got.Equal(latest) {
				t.Errorf("last used at %v, after %v", got, latest)
			}
			r.flush()
		}
		r.wantUsage(made.Key.ID, usage(latest, 4, "192.0.2.1", "ua"))
	})
}

// More keys than the index has room for: the uses of the others are kept aside.
func TestKeysWithoutRoomInTheIndexAreCountedToo(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := issueMany(t, r.Keyring, 2*apikey.LeastCapacity)
	for range 3 {
		for _, m := range made {
			r.use(m.Token, "192.0.2.1", "ua")
		}
	}
	stats := r.IndexStats()
	if stats.Entries > apikey.LeastCapacity || stats.Pending != len(made) {
		t.Errorf("%+v, want at most %d entries and %d keys waiting", stats, apikey.LeastCapacity, len(made))
	}
	check := func(when string, want uint64) {
		t.Helper()
		for i := 0; i < len(made); i += 7 {
			if got := r.get(operator, made[i].Key.ID).Usage; got.Count != want || !got.LastUsedAt.Equal(r.clock.now()) {
				t.Fatalf("%s the flush: key %d of %d has %+v", when, i, len(made), got)
			}
		}
	}
	check("before", 3)
	r.flush()
	check("after", 3)
	for _, m := range made {
		r.use(m.Token, "192.0.2.1", "ua")
	}
	r.flush()
	check("after another", 4)
	if r.seen.dropped != 0 || r.IndexStats().Pending != 0 {
		t.Errorf("%d uses dropped, %d keys waiting", r.seen.dropped, r.IndexStats().Pending)
	}
}
