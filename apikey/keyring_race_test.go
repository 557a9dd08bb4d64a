package apikey_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// rounds makes the longest tests shorter under the race detector, which makes
// each round ten times as long.
func rounds(n int) int {
	if raceEnabled {
		return n / 5
	}
	return n
}

// victim is the key of one round, and whether the call that revoked it has
// returned.
type victim struct {
	made    apikey.Issued
	revoked atomic.Bool
}

// No check that began after Revoke returned lets the key in. The first checks of
// each key miss the index, so fills race the revocation too.
func TestRevokedKeyIsNeverAcceptedAgain(t *testing.T) {
	for _, s := range []struct {
		name   string
		open   func(testing.TB) apikey.Store
		rounds int
	}{
		{"memory", stores[0].open, rounds(40_000)},
		{"awkward", stores[1].open, rounds(10_000)},
		{"bolt", openBolt, rounds(500)},
	} {
		t.Run(s.name, func(t *testing.T) {
			var checks, before, after atomic.Int64
			for done := 0; done < s.rounds && !t.Failed(); {
				r := openRing(t, s.open(t))
				batch := issueMany(t, r.Keyring, min(250, s.rounds-done))
				var current atomic.Pointer[victim]
				var running sync.WaitGroup
				stop := make(chan struct{})
				current.Store(&victim{made: batch[0]})
				for range 3 {
					running.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
							}
							runtime.Gosched() // few cores, and the others want to run too
							it := current.Load()
							revoked := it.revoked.Load()
							v, err := r.Verify(ctx, it.made.Token)
							checks.Add(1)
							switch {
							case err != nil || v.KeyID != it.made.Key.ID:
								t.Errorf("%+v, %v", v, err)
								return
							case revoked && v.Allowed():
								t.Errorf("accepted after Revoke had returned")
								return
							case revoked:
								after.Add(1)
							case v.Allowed():
								before.Add(1)
							}
						}
					})
				}
				for _, made := range batch {
					it := &victim{made: made}
					current.Store(it)
					for range done % 5 { // at different moments of the first checks
						runtime.Gosched()
					}
					if _, err := r.Revoke(ctx, operator, made.Key.ID); err != nil {
						t.Error(err)
						break
					}
					it.revoked.Store(true)
					// Each of the three may have one check under way that began before.
					for seen := checks.Load(); checks.Load() < seen+4 && !t.Failed(); {
						runtime.Gosched()
					}
					done++
				}
				close(stop)
				running.Wait()
				r.Close()
			}
			t.Logf("%d keys revoked; %d checks, of which %d accepted before, %d refused after", s.rounds, checks.Load(), before.Load(), after.Load())
			if before.Load() == 0 || after.Load() == 0 {
				t.Error("the race has not taken place")
			}
		})
	}
}

// Everybody at once, and more keys than room: whoever is let in is who he says,
// and every use is counted, for its own key.
func TestNoUseIsLostAndNoneIsCreditedToAnother(t *testing.T) {
	for _, s := range []struct {
		name string
		open func(testing.TB) apikey.Store
		uses int
	}{
		{"memory", stores[0].open, rounds(200_000)},
		{"awkward", stores[1].open, rounds(100_000)},
		{"bolt", openBolt, rounds(100_000)},
	} {
		t.Run(s.name, func(t *testing.T) {
			r := openRingWith(t, s.open(t), apikey.Settings{FlushInterval: 2 * time.Millisecond, UsageResolution: 3 * time.Millisecond})
			made := issueMany(t, r.Keyring, 6000) // room for 2048
			spare := issueMany(t, r.Keyring, 1000)
			var spent atomic.Int64
			used := make([]atomic.Uint64, len(made))
			latest := make([]atomic.Int64, len(made))
			var running sync.WaitGroup
			for g := range 4 {
				running.Go(func() {
					random := rand.New(rand.NewPCG(uint64(g), 1))
					for range s.uses / 4 {
						// Some keys are used all the time, most hardly ever.
						n := int(float64(len(made)) * random.Float64() * random.Float64())
						v, err := r.Verify(ctx, made[n].Token)
						if err != nil || !v.Allowed() || v.KeyID != made[n].Key.ID || v.UserID != made[n].Key.UserID || v.OrganizationID != "acme" {
							t.Errorf("key %d is taken for %+v, %v", n, v, err)
							return
						}
						at := r.clock.now().UnixMilli()
						r.Use(&v, fmt.Sprintf("192.0.2.%d", random.IntN(3)), "ua")
						used[n].Add(1)
						for old := latest[n].Load(); at-1000 > old && !latest[n].CompareAndSwap(old, at-1000); old = latest[n].Load() {
						}
						if random.IntN(50) == 0 {
							r.clock.advance(time.Millisecond)
						}
						if random.IntN(1000) == 0 { // other keys change
							if i := int(spent.Add(1)); i < len(spare) {
								// The awkward store may lose every answer, if others write in between.
								if _, err := r.Revoke(ctx, operator, spare[i].Key.ID); err != nil && !errors.Is(err, apikey.ErrOutcomeUnknown) {
									t.Error(err)
								}
							}
						}
					}
				})
			}
			running.Wait()
			r.flush()
			total, lost := uint64(0), 0
			for n := range made {
				got := r.get(operator, made[n].Key.ID).Usage
				total += got.Count
				if got.Count != used[n].Load() {
					if lost++; lost < 5 {
						t.Errorf("key %d was used %d times and has %d", n, used[n].Load(), got.Count)
					}
				}
				if got.LastUsedAt.UnixMilli() < latest[n].Load() && got.Count > 0 {
					t.Errorf("key %d was last used at %v, not %v", n, time.UnixMilli(latest[n].Load()), got.LastUsedAt)
				}
				if got.Count > 0 && (!got.LastUsedIP.IsValid() || got.LastUsedUserAgent != "ua") {
					t.Errorf("key %d was used from nowhere: %+v", n, got)
				}
			}
			stats := r.IndexStats()
			t.Logf("%d uses counted; %d hits, %d misses, %d entries; %d keys off by some", total, stats.Hits, stats.Misses, stats.Entries, lost)
			if stats.Pending != 0 || r.seen.dropped != 0 {
				t.Errorf("%d keys still wait, %d uses dropped", stats.Pending, r.seen.dropped)
			}
		})
	}
}

// Whoever used a key sees it in the next answer, whatever flush is under way.
func TestUsageIsNeverBehindWhileItIsFlushed(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := issueMany(t, r.Keyring, 20)
	stop := make(chan struct{})
	var running, flushing sync.WaitGroup
	flushing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.flush()
				runtime.Gosched()
			}
		}
	})
	for g := range 2 { // each with keys of its own
		running.Go(func() {
			count := make(map[apikey.ID]uint64)
			for i := range rounds(10_000) {
				m := made[(i*2+g)%len(made)]
				r.clock.advance(time.Millisecond)
				before := r.clock.now()
				v, err := r.Verify(ctx, m.Token)
				if err != nil || !v.Allowed() {
					t.Errorf("%+v, %v", v, err)
					return
				}
				address := fmt.Sprintf("192.0.2.%d", i%200)
				r.Use(&v, address, "ua")
				count[m.Key.ID]++
				var seen apikey.Usage
				if i%2 == 0 {
					key, err := r.Get(ctx, operator, m.Key.ID)
					if err != nil {
						t.Error(err)
						return
					}
					seen = key.Usage
				} else {
					page, err := r.List(ctx, operator, apikey.ListQuery{Limit: 100})
					if err != nil {
						t.Error(err)
						return
					}
					for _, key := range page.Keys {
						if key.ID == m.Key.ID {
							seen = key.Usage
						}
					}
				}
				if seen.Count < count[m.Key.ID] || seen.LastUsedAt.Before(before) || seen.LastUsedIP.String() != address {
					t.Errorf("use %d of %s from %s at %v: the answer tells of %+v", count[m.Key.ID], m.Key.ID, address, before, seen)
					return
				}
			}
		})
	}
	running.Wait()
	close(stop)
	flushing.Wait()
}

// The time of the last of several uses at once is in the store, whichever of
// them a flush came between.
func TestTimeOfTheLastUseIsNotLostToAFlush(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	r.use(made.Token, "192.0.2.1", "ua")
	for range rounds(20_000) {
		r.clock.advance(time.Millisecond)
		var running sync.WaitGroup
		for range 2 {
			running.Go(func() { r.use(made.Token, "192.0.2.1", "ua") })
		}
		running.Go(r.flush)
		running.Wait()
		if got := r.get(operator, made.Key.ID).Usage.LastUsedAt; !got.Equal(r.clock.now()) {
			t.Fatalf("Get tells of the use before the last: %v, want %v", got, r.clock.now())
		}
	}
	r.flush()
	if got := r.get(operator, made.Key.ID).Usage; got.Count != 1+2*uint64(rounds(20_000)) || !got.LastUsedAt.Equal(r.clock.now()) {
		t.Errorf("%+v", got)
	}
}

func TestKeysAreIssuedAndRevokedByManyAtOnce(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		const each = 25
		var running sync.WaitGroup
		for g := range 4 {
			running.Go(func() {
				by := user(fmt.Sprint("org", g%2), fmt.Sprint("user", g))
				for i := range each {
					made, err := r.Issue(ctx, by, apikey.Issue{Name: "n"})
					if err != nil {
						t.Error(err)
						return
					}
					if v, err := r.Verify(ctx, made.Token); err != nil || !v.Allowed() || v.UserID != by.UserID {
						t.Errorf("%+v, %v", v, err)
					}
					if i%2 == 0 {
						if _, err := r.Revoke(ctx, by, made.Key.ID); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		running.Wait()
		stats, err := r.Stats(ctx)
		if err != nil || stats.Issued != 4*each || stats.Revoked != 4*(each+1)/2 {
			t.Errorf("%+v, %v", stats, err)
		}
		for g := range 2 {
			page, err := r.List(ctx, user(fmt.Sprint("org", g), "u"), apikey.ListQuery{Limit: 100})
			if err != nil || len(page.Keys) != 2*each {
				t.Errorf("%d keys, %v", len(page.Keys), err)
			}
		}
	})
}

func TestRequestPathAllocatesNothing(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Hour)})
	v := r.verify(made.Token, apikey.ReasonNone)
	r.Use(&v, client, agent)
	mistyped, wrong := flip(made.Token, 40), apikey.Resum(flip(made.Token, 40)[:68])
	unknown := apikey.Resum(flip(made.Token, 10)[:68])
	for name, do := range map[string]func(){
		"a good key":           func() { v, _ = r.Verify(ctx, made.Token) },
		"a bad checksum":       func() { _, _ = r.Verify(ctx, mistyped) },
		"a use":                func() { r.Use(&v, client, agent) },
		"no token of ours":     func() { _, _ = r.Verify(ctx, "Zm9vOmJhcg==") },
		"the wrong secret":     func() { _, _ = r.Verify(ctx, wrong) },
		"an unknown key":       func() { _, _ = r.Verify(ctx, unknown) },
		"a use a moment later": func() { r.clock.advance(time.Millisecond); v, _ = r.Verify(ctx, made.Token); r.Use(&v, client, agent) },
	} {
		if n := testing.AllocsPerRun(1000, do); n != 0 && !raceEnabled { // the race detector allocates by itself
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
