package apikey_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

func once(route, key string, body byte) *apikey.Once {
	return &apikey.Once{Route: route, Key: key, Fingerprint: [32]byte{body}}
}

func (r *ring) keys() int {
	r.t.Helper()
	stats, err := r.Stats(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return int(stats.Issued)
}

func TestCallThatIsRepeatedMakesNoSecondKey(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		alice := user("acme", "alice")
		first := r.issue(alice, apikey.Issue{Once: once("create", "a", 1)})
		bot := apikey.Principal{OrganizationID: "acme", ServiceAccountID: "alice", Scope: apikey.ScopeReadWrite}
		for range 3 {
			made, err := r.Issue(ctx, alice, apikey.Issue{Name: "n", Once: once("create", "a", 1)})
			var replayed *apikey.Replayed
			if !errors.As(err, &replayed) || replayed.KeyID != first.Key.ID || made != (apikey.Issued{}) {
				t.Errorf("the same again: %v", err)
			}
			if _, err := r.Issue(ctx, alice, apikey.Issue{Name: "n", Once: once("create", "a", 2)}); !errors.Is(err, apikey.ErrOnceReused) {
				t.Errorf("another body: %v", err)
			}
		}
		if r.keys() != 1 {
			t.Errorf("%d keys", r.keys())
		}
		for name, c := range map[string]struct {
			by   apikey.Principal
			once *apikey.Once
		}{
			"another user":         {user("acme", "bob"), once("create", "a", 1)},
			"another kind":         {bot, once("create", "a", 1)},
			"another organization": {user("globex", "alice"), once("create", "a", 1)},
			"another route":        {alice, once("other", "a", 1)},
			"another key":          {alice, once("create", "b", 1)},
			"none":                 {alice, nil},
		} {
			if _, err := r.Issue(ctx, c.by, apikey.Issue{Name: "n", Once: c.once}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// The operator's calls are his own.
		if _, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "alice", Once: once("create", "a", 1)}); err != nil {
			t.Error(err)
		}
	})
}

func TestRotationThatIsRepeatedMakesNoSecondKey(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		old := r.issue(operator, apikey.Issue{})
		next, err := r.Rotate(ctx, operator, old.Key.ID, apikey.Rotate{Once: once("rotate", "a", 1)})
		if err != nil {
			t.Fatal(err)
		}
		var replayed *apikey.Replayed
		if _, err := r.Rotate(ctx, operator, old.Key.ID, apikey.Rotate{Once: once("rotate", "a", 1)}); !errors.As(err, &replayed) || replayed.KeyID != next.Key.ID {
			t.Errorf("the same again: %v", err)
		}
		if _, err := r.Rotate(ctx, operator, old.Key.ID, apikey.Rotate{Once: once("rotate", "a", 2)}); !errors.Is(err, apikey.ErrOnceReused) {
			t.Errorf("another body: %v", err)
		}
	})
}

func TestRefusedCallDoesNotUseItsKeyUp(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		old := r.issue(operator, apikey.Issue{})
		r.revoke(operator, old.Key.ID)
		if _, err := r.Rotate(ctx, operator, old.Key.ID, apikey.Rotate{Once: once("create", "a", 1)}); !errors.Is(err, apikey.ErrNotActive) {
			t.Fatal(err)
		}
		r.issue(operator, apikey.Issue{Once: once("create", "a", 2)})
	})
}

func TestCallIsForgottenAfterADay(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		calls := func() (n int) {
			for key := range dump(t, r.store.Store) {
				if strings.HasPrefix(key, "calls ") {
					n++
				}
			}
			return n
		}
		alice := user("acme", "alice")
		r.issue(alice, apikey.Issue{Once: once("create", "old", 1)})
		r.issue(alice, apikey.Issue{Once: once("create", "renewed", 1)})
		r.clock.advance(24*time.Hour - time.Millisecond)
		if _, err := r.Issue(ctx, alice, apikey.Issue{Name: "n", Once: once("create", "renewed", 1)}); err == nil {
			t.Fatal("forgotten too early")
		}
		forget := func() {
			t.Helper()
			for range 3 { // an answer may be lost
				if err := r.ForgetCalls(ctx); err == nil {
					return
				} else if !errors.Is(err, apikey.ErrOutcomeUnknown) {
					t.Fatal(err)
				}
			}
			t.Fatal("calls are not forgotten")
		}
		forget()
		if calls() != 2 {
			t.Fatalf("%d calls, want both", calls())
		}
		r.clock.advance(time.Millisecond)
		r.issue(alice, apikey.Issue{Once: once("create", "renewed", 2)})
		forget()
		if calls() != 1 {
			t.Errorf("%d calls, want the new one", calls())
		}
		if _, err := r.Issue(ctx, alice, apikey.Issue{Name: "n", Once: once("create", "renewed", 2)}); err == nil {
			t.Error("the new call was forgotten")
		}
	})
}

func TestCallIsRememberedWhenItWouldBeRefusedNow(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		call := apikey.Issue{ExpiresAt: r.clock.in(time.Second), Once: once("create", "a", 1)}
		first := r.issue(operator, call)
		r.clock.advance(time.Second)
		call.Name, call.UserID = "n", "u"
		var replayed *apikey.Replayed
		if _, err := r.Issue(ctx, operator, call); !errors.As(err, &replayed) || replayed.KeyID != first.Key.ID {
			t.Errorf("the same call, when its key has expired: %v", err)
		}
		call.Once = once("create", "a", 2)
		if _, err := r.Issue(ctx, operator, call); !errors.Is(err, apikey.ErrOnceReused) {
			t.Errorf("another call: %v", err)
		}
		call.Once = once("create", "b", 1)
		if _, err := r.Issue(ctx, operator, call); !isField(err, "expiresAt") {
			t.Errorf("a call that was not made: %v", err)
		}
	})
}

func TestCallIsRememberedAcrossARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	open := func() *ring {
		store, err := boltstore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return openRing(t, store)
	}
	r := open()
	first := r.issue(operator, apikey.Issue{Once: once("create", "a", 1)})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open()
	var replayed *apikey.Replayed
	if _, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u", Once: once("create", "a", 1)}); !errors.As(err, &replayed) || replayed.KeyID != first.Key.ID {
		t.Error(err)
	}
}

func TestManyCallsAtOnceWithOneKeyMakeOneKey(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		made, replayed := map[apikey.ID]bool{}, map[apikey.ID]bool{}
		for range 32 {
			wg.Go(func() {
				issued, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u", Once: once("create", "a", 1)})
				mu.Lock()
				defer mu.Unlock()
				var again *apikey.Replayed
				switch {
				case err == nil:
					made[issued.Key.ID] = true
				case errors.As(err, &again):
					replayed[again.KeyID] = true
				case !errors.Is(err, apikey.ErrOutcomeUnknown):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if r.keys() != 1 || len(made) > 1 || len(replayed) != 1 {
			t.Errorf("%d keys, made %v, replayed %v", r.keys(), made, replayed)
		}
		for id := range made {
			if !replayed[id] {
				t.Errorf("made %v, replayed %v", made, replayed)
			}
		}
	})
}
