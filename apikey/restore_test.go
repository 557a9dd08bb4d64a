package apikey_test

import (
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// copyOf is a store with the same records: a backup.
func copyOf(t testing.TB, store apikey.Store) apikey.Store {
	t.Helper()
	to := storagetest.NewMemory()
	if err := store.View(ctx, func(from apikey.Reader) error {
		return to.Update(ctx, func(tx apikey.Tx) (err error) {
			for _, table := range apikey.Tables() {
				if err := from.Scan(table, apikey.Range{}, func(key, value []byte) bool {
					err = tx.Put(table, key, value)
					return err == nil
				}); err != nil {
					return err
				}
			}
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestARestoredKeyHasNoMoreRightsThanItHadAtLast(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	alice := user("acme", "alice")
	writer := apikey.Issue{Scope: apikey.ScopeReadWrite}
	kept, revoked, narrowed := r.issue(alice, writer), r.issue(alice, writer), r.issue(alice, writer)
	shortened, rotated, widened := r.issue(alice, writer), r.issue(alice, writer), r.issue(alice, apikey.Issue{})
	before := r.issue(alice, writer)
	r.revoke(alice, before.Key.ID)
	backup := copyOf(t, r.store)

	r.clock.advance(time.Hour)
	wasRevoked := r.revoke(alice, revoked.Key.ID).RevokedAt
	read, write, soon := apikey.ScopeRead, apikey.ScopeReadWrite, r.clock.in(time.Minute)
	for id, what := range map[apikey.ID]apikey.Update{
		narrowed.Key.ID: {Scope: &read}, shortened.Key.ID: {ExpiresAt: &soon}, widened.Key.ID: {Scope: &write},
	} {
		if _, err := r.Update(ctx, operator, id, what); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Rotate(ctx, alice, rotated.Key.ID, apikey.Rotate{Grace: time.Minute}); err != nil {
		t.Fatal(err)
	}

	r.clock.advance(time.Hour)
	want := apikey.Carried{Revoked: 1, Shorter: 2, Narrower: 1}
	for range 2 { // it can be repeated
		got, err := apikey.CarryOver(ctx, backup, apikey.HistoryOf(r.store), r.clock.now())
		if err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		want = apikey.Carried{}
	}
	if _, faults := faultsOf(t, backup); len(faults) > 0 {
		t.Errorf("%q", faults)
	}

	restored, err := apikey.Open(backup, apikey.Settings{Clock: r.clock.now}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	for name, k := range map[string]struct {
		token string
		want  apikey.Reason
		scope apikey.Scope
	}{
		"kept":       {kept.Token, apikey.ReasonNone, apikey.ScopeReadWrite},
		"revoked":    {revoked.Token, apikey.ReasonRevoked, apikey.ScopeReadWrite},
		"before":     {before.Token, apikey.ReasonRevoked, apikey.ScopeReadWrite},
		"narrowed":   {narrowed.Token, apikey.ReasonNone, apikey.ScopeRead},
		"shortened":  {shortened.Token, apikey.ReasonExpired, apikey.ScopeReadWrite},
		"rotated":    {rotated.Token, apikey.ReasonExpired, apikey.ScopeReadWrite},
		"not raised": {widened.Token, apikey.ReasonNone, apikey.ScopeRead},
	} {
		if v, err := restored.Verify(ctx, k.token); err != nil || v.Reason != k.want || v.Scope != k.scope {
			t.Errorf("%s: %s %s, %v", name, v.Reason, v.Scope, err)
		}
	}
	if key, err := restored.Get(ctx, operator, revoked.Key.ID); err != nil || !key.RevokedAt.Equal(wasRevoked) {
		t.Errorf("revoked at %v, %v, want %v", key.RevokedAt, err, wasRevoked)
	}
}

// Retention removes the records of keys that have ended. They must not come back.
func TestAKeyThatWasRemovedAfterTheBackupIsRevoked(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	gone, kept := r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{})
	backup := copyOf(t, r.store)
	if err := r.store.Update(ctx, func(tx apikey.Tx) error { return tx.Delete(apikey.TableKeys, gone.Key.ID[:]) }); err != nil {
		t.Fatal(err)
	}
	if got, err := apikey.CarryOver(ctx, backup, apikey.HistoryOf(r.store), r.clock.now()); err != nil || got.Revoked != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	restored, err := apikey.Open(backup, apikey.Settings{Clock: r.clock.now}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	for token, want := range map[string]apikey.Reason{gone.Token: apikey.ReasonRevoked, kept.Token: apikey.ReasonNone} {
		if v, err := restored.Verify(ctx, token); v.Reason != want {
			t.Errorf("%s, %v, want %s", v.Reason, err, want)
		}
	}
}

func TestAStoreWithoutAnyOfTheKeysIsNoLaterState(t *testing.T) {
	one, other, empty := openRing(t, storagetest.NewMemory()), openRing(t, storagetest.NewMemory()), openRing(t, storagetest.NewMemory())
	issueMany(t, one.Keyring, 1200)
	last := one.issue(operator, apikey.Issue{})
	issueMany(t, other.Keyring, 10)
	same := copyOf(t, one.store)
	only := storagetest.NewMemory()
	if err := only.Update(ctx, func(tx apikey.Tx) error { return tx.Put(apikey.TableKeys, last.Key.ID[:], []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		of, with apikey.Store
		want     bool
	}{
		"itself":             {one.store, same, true},
		"its last key":       {one.store, only, true},
		"another":            {one.store, other.store, false},
		"an empty one":       {one.store, empty.store, false},
		"of an empty backup": {empty.store, other.store, true},
	} {
		if got, err := apikey.SomeInCommon(ctx, test.of, test.with); got != test.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
