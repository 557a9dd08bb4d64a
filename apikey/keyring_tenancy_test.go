package apikey_test

import (
	"maps"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func TestForeignKeyIsAbsent(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(user("acme", "alice"), apikey.Issue{})
		r.remembered(made.Token)
		absent := apikey.ID{0: 1, 6: 0x70, 8: 0x80}
		before := dump(t, r.store.Store)
		for name, by := range map[string]apikey.Principal{
			"another organization":           user("globex", "alice"),
			"one whose id begins the same":   user("acme2", "alice"),
			"one whose id is a start":        user("acm", "alice"),
			"one in another case":            user("ACME", "alice"),
			"none":                           user("", "alice"),
			"operator of another":            apikey.Operator("globex"),
			"service account of another":     {OrganizationID: "globex", ServiceAccountID: "robot", Scope: apikey.ScopeReadWrite},
			"organization of a foreign name": user("alice", "acme"),
		} {
			for _, id := range []apikey.ID{made.Key.ID, absent, {}} {
				if key, err := r.Get(ctx, by, id); err != apikey.ErrNotFound || key != (apikey.Key{}) {
					t.Errorf("%s gets %+v, %v", name, key, err)
				}
				if key, err := r.Revoke(ctx, by, id); err != apikey.ErrNotFound || key != (apikey.Key{}) {
					t.Errorf("%s revokes %+v, %v", name, key, err)
				}
			}
		}
		if !maps.Equal(before, dump(t, r.store.Store)) {
			t.Error("refused calls have changed the store")
		}
		// Nor has anybody driven the key out of the index.
		r.store.gone.Store(true)
		r.verify(made.Token, apikey.ReasonNone)
		r.store.gone.Store(false)
		if r.seen.told() != "issued" || len(r.seen.faults) != 0 {
			t.Errorf("the observer was told %q and of faults %v", r.seen.told(), r.seen.faults)
		}
	})
}

func TestOperatorFindsKeysOfEveryOrganization(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for _, organization := range []string{"acme", "globex"} {
			made := r.issue(user(organization, "alice"), apikey.Issue{})
			if key := r.get(apikey.Operator(""), made.Key.ID); key != made.Key {
				t.Errorf("got %+v, want %+v", key, made.Key)
			}
			if key := r.revoke(apikey.Operator(""), made.Key.ID); !key.Revoked() {
				t.Error("not revoked")
			}
		}
		if _, err := r.Get(ctx, apikey.Operator(""), apikey.ID{1}); err != apikey.ErrNotFound {
			t.Errorf("an unknown key: %v", err)
		}
	})
}

func TestReadKeySeesItselfOnly(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		read := r.issue(user("acme", "alice"), apikey.Issue{Scope: apikey.ScopeRead})
		other := r.issue(user("acme", "alice"), apikey.Issue{Scope: apikey.ScopeReadWrite})
		foreign := r.issue(user("globex", "alice"), apikey.Issue{})
		v := r.verify(read.Token, apikey.ReasonNone)
		by := v.Principal()
		before := dump(t, r.store.Store)
		if key := r.get(by, read.Key.ID); key != read.Key {
			t.Errorf("sees itself as %+v, want %+v", key, read.Key)
		}
		for name, call := range map[string]func() error{
			"get of another":    func() error { _, err := r.Get(ctx, by, other.Key.ID); return err },
			"get of a foreign":  func() error { _, err := r.Get(ctx, by, foreign.Key.ID); return err },
			"get of an unknown": func() error { _, err := r.Get(ctx, by, apikey.ID{1}); return err },
			"list":              func() error { _, err := r.List(ctx, by, apikey.ListQuery{Limit: 10}); return err },
			"issue":             func() error { _, err := r.Issue(ctx, by, apikey.Issue{Name: "n"}); return err },
			"issue to robots":   func() error { _, err := r.Issue(ctx, by, apikey.Issue{Name: "n", ServiceAccountID: "r"}); return err },
			"revoke of itself":  func() error { _, err := r.Revoke(ctx, by, read.Key.ID); return err },
			"revoke of another": func() error { _, err := r.Revoke(ctx, by, other.Key.ID); return err },
			"revoke of foreign": func() error { _, err := r.Revoke(ctx, by, foreign.Key.ID); return err },
		} {
			if err := call(); err != apikey.ErrScope {
				t.Errorf("%s: %v, want ErrScope", name, err)
			}
		}
		if !maps.Equal(before, dump(t, r.store.Store)) {
			t.Error("refused calls have changed the store")
		}
	})
}

// An identity from elsewhere has no key that it could be.
func TestReadIdentityWithoutAKeySeesNothing(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(user("acme", "alice"), apikey.Issue{})
	by := apikey.Principal{OrganizationID: "acme", UserID: "alice", Scope: apikey.ScopeRead}
	if _, err := r.Get(ctx, by, made.Key.ID); err != apikey.ErrScope {
		t.Errorf("get: %v", err)
	}
	if _, err := r.Get(ctx, by, apikey.ID{}); err != apikey.ErrNotFound && err != apikey.ErrScope {
		t.Errorf("get of the zero id: %v", err)
	}
}

// The caller was let in; then its key ended, before its write was taken up.
func TestCallerWhoseKeyEndedBeforeTheWriteIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(r *ring, caller apikey.Issued, by *apikey.Principal)
		want error
	}{
		"revoked": {func(r *ring, caller apikey.Issued, _ *apikey.Principal) { r.revoke(operator, caller.Key.ID) }, apikey.ErrCaller},
		"expired": {func(r *ring, caller apikey.Issued, _ *apikey.Principal) { r.clock.set(caller.Key.ExpiresAt) }, apikey.ErrCaller},
		"of lesser scope now": {func(r *ring, _ apikey.Issued, by *apikey.Principal) {
			by.KeyID = r.issue(operator, apikey.Issue{}).Key.ID
		}, apikey.ErrScope},
		"of another tenant":      {func(_ *ring, _ apikey.Issued, by *apikey.Principal) { by.OrganizationID = "globex" }, apikey.ErrCaller},
		"gone from the database": {func(_ *ring, _ apikey.Issued, by *apikey.Principal) { by.KeyID[15] ^= 1 }, apikey.ErrCaller},
	} {
		t.Run(name, func(t *testing.T) {
			onEveryStore(t, func(t *testing.T, r *ring) {
				caller := r.issue(operator, apikey.Issue{Scope: apikey.ScopeReadWrite, ExpiresAt: r.clock.in(time.Hour)})
				victim := r.issue(operator, apikey.Issue{})
				v := r.verify(caller.Token, apikey.ReasonNone)
				by := v.Principal()
				c.end(r, caller, &by)
				before := dump(t, r.store.Store)
				if made, err := r.Issue(ctx, by, apikey.Issue{Name: "n"}); err != c.want || made.Token != "" {
					t.Errorf("issue: %q, %v", made.Token, err)
				}
				if _, err := r.Revoke(ctx, by, victim.Key.ID); err != c.want {
					t.Errorf("revoke: %v", err)
				}
				if _, err := r.Revoke(ctx, by, by.KeyID); err != c.want {
					t.Errorf("revoke of itself: %v", err)
				}
				if !maps.Equal(before, dump(t, r.store.Store)) {
					t.Error("something was written for a caller that is no longer one")
				}
				r.verify(victim.Token, apikey.ReasonNone)
			})
		})
	}
}

// The same in the last moment: the update is on its way to the store.
func TestCallerIsCheckedInsideTheWrite(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for name, write := range map[string]func(by apikey.Principal, victim apikey.ID) error{
			"issue": func(by apikey.Principal, _ apikey.ID) error {
				_, err := r.Issue(ctx, by, apikey.Issue{Name: "n"})
				return err
			},
			"revoke": func(by apikey.Principal, victim apikey.ID) error { _, err := r.Revoke(ctx, by, victim); return err },
		} {
			caller := r.issue(operator, apikey.Issue{Scope: apikey.ScopeReadWrite})
			victim := r.issue(operator, apikey.Issue{})
			v := r.verify(caller.Token, apikey.ReasonNone)
			var after map[string]string
			before := func() error {
				r.store.before.Store(nil)
				r.revoke(operator, caller.Key.ID)
				after = dump(t, r.store.Store)
				return nil
			}
			r.store.before.Store(&before)
			if err := write(v.Principal(), victim.Key.ID); err != apikey.ErrCaller {
				t.Errorf("%s: %v, want ErrCaller", name, err)
			}
			if !maps.Equal(after, dump(t, r.store.Store)) {
				t.Errorf("%s: something was written", name)
			}
			r.verify(victim.Token, apikey.ReasonNone)
		}
	})
}

// A key may end itself, also when the answer of the store gets lost and the
// write, run again, finds its caller revoked.
func TestKeyMayRevokeItself(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for i := range 12 {
			for range i % 3 { // so that every answer gets lost once
				r.issue(operator, apikey.Issue{})
			}
			made := r.issue(operator, apikey.Issue{Scope: apikey.ScopeReadWrite})
			v := r.verify(made.Token, apikey.ReasonNone)
			key, err := r.Revoke(ctx, v.Principal(), made.Key.ID)
			if err != nil || !key.Revoked() {
				t.Fatalf("round %d: %+v, %v", i, key, err)
			}
			r.verify(made.Token, apikey.ReasonRevoked)
			if _, err := r.Revoke(ctx, v.Principal(), made.Key.ID); err != apikey.ErrCaller {
				t.Errorf("a revoked key revokes itself again: %v", err)
			}
		}
		if stats, err := r.Stats(ctx); err != nil || stats.Revoked != 12 {
			t.Errorf("%+v, %v", stats, err)
		}
	})
}

func TestTwoKeysMayHaveOneName(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	one, two := r.issue(operator, apikey.Issue{Name: "same"}), r.issue(operator, apikey.Issue{Name: "same"})
	if one.Key.ID == two.Key.ID || one.Token == two.Token {
		t.Error("two keys are one")
	}
}

// Where the store was tampered with, a tenant still sees nothing foreign, and
// nobody's request ends in a panic.
func TestListSurvivesARecordThatDoesNotBelongThere(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	own := r.issue(operator, apikey.Issue{})
	foreign := r.issue(user("globex", "eve"), apikey.Issue{})
	for name, key := range map[string]string{
		"another's key":   "acme\x00" + string(foreign.Key.ID[:]),
		"nobody's key":    "acme\x00" + string(make([]byte, 15)) + "\x01",
		"too short an id": "acme\x00" + "short",
		"too long an id":  "acme\x00" + string(own.Key.ID[:]) + "x",
		"no id":           "acme\x00",
	} {
		t.Run(name, func(t *testing.T) {
			if err := r.store.Update(ctx, func(tx apikey.Tx) error { return tx.Put(apikey.TableOrganizations, []byte(key), []byte{1}) }); err != nil {
				t.Fatal(err)
			}
			page, err := r.List(ctx, operator, apikey.ListQuery{Limit: 100})
			if err != nil || len(page.Keys) != 1 || page.Keys[0] != own.Key {
				t.Errorf("%+v, %v", page, err)
			}
		})
	}
}
