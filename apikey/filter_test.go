package apikey_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// list returns the names of all keys that a filter admits, page by page.
func (r *ring) list(by apikey.Principal, which apikey.Filter, limit int) (names []string) {
	r.t.Helper()
	for after, more := (apikey.ID{}), true; more; {
		page, err := r.List(ctx, by, apikey.ListQuery{Filter: which, After: after, Limit: limit})
		if err != nil {
			r.t.Fatal(err)
		}
		if len(page.Keys) > limit {
			r.t.Fatalf("%d keys on a page of %d", len(page.Keys), limit)
		}
		for _, key := range page.Keys {
			names = append(names, key.Name)
		}
		after, more = page.Next, !page.Next.IsZero()
	}
	return names
}

func TestListShowsWhatTheFilterAdmits(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		tick := func() { r.clock.advance(time.Millisecond) } // keys of one millisecond have no order
		minter, self := r.holder(apikey.Issue{Name: "minter", Scope: apikey.ScopeReadWrite})
		tick()
		r.issue(self, apikey.Issue{Name: "minted"})
		tick()
		r.issue(operator, apikey.Issue{Name: "bob's", UserID: "bob"})
		tick()
		r.issue(operator, apikey.Issue{Name: "bot's", ServiceAccountID: "bot", Scope: apikey.ScopeReadWrite})
		tick()
		r.issue(operator, apikey.Issue{Name: "expired", UserID: "bob", ExpiresAt: r.clock.in(20 * time.Millisecond)})
		tick()
		gone := r.issue(operator, apikey.Issue{Name: "revoked", UserID: "bob", ExpiresAt: r.clock.in(20 * time.Millisecond)})
		r.revoke(operator, gone.Key.ID)
		tick()
		r.issue(apikey.Operator("globex"), apikey.Issue{Name: "foreign", UserID: "bob"})
		tick()
		used := r.issue(operator, apikey.Issue{Name: "used", UserID: "carol"})
		r.clock.advance(time.Second)
		r.use(used.Token, "192.0.2.1", "ua")
		read, write := apikey.ScopeRead, apikey.ScopeReadWrite
		for name, c := range map[string]struct {
			which apikey.Filter
			want  []string
		}{
			"all":                 {apikey.Filter{}, []string{"used", "revoked", "expired", "bot's", "bob's", "minted", "minter"}},
			"active":              {apikey.Filter{Status: apikey.StatusActive}, []string{"used", "bot's", "bob's", "minted", "minter"}},
			"expired":             {apikey.Filter{Status: apikey.StatusExpired}, []string{"expired"}},
			"revoked":             {apikey.Filter{Status: apikey.StatusRevoked}, []string{"revoked"}},
			"scope read":          {apikey.Filter{Scope: &read}, []string{"used", "revoked", "expired", "bob's", "minted"}},
			"scope read-write":    {apikey.Filter{Scope: &write}, []string{"bot's", "minter"}},
			"a user":              {apikey.Filter{UserID: "bob"}, []string{"revoked", "expired", "bob's"}},
			"a service account":   {apikey.Filter{ServiceAccountID: "bot"}, []string{"bot's"}},
			"no such user":        {apikey.Filter{UserID: "bot"}, nil},
			"a minter":            {apikey.Filter{MintedBy: minter.Key.ID}, []string{"minted"}},
			"unused since before": {apikey.Filter{UnusedSince: r.clock.now()}, []string{"revoked", "expired", "bot's", "bob's", "minted", "minter"}},
			"unused since after":  {apikey.Filter{UnusedSince: r.clock.in(time.Millisecond)}, []string{"used", "revoked", "expired", "bot's", "bob's", "minted", "minter"}},
			"two conditions":      {apikey.Filter{UserID: "bob", Status: apikey.StatusActive}, []string{"bob's"}},
		} {
			for _, limit := range []int{1, 2, 100} {
				if got := r.list(operator, c.which, limit); !slices.Equal(got, c.want) {
					t.Errorf("%s, pages of %d: %q, want %q", name, limit, got, c.want)
				}
			}
		}
	})
}

func TestPageLooksAtSoManyKeysAndNoMore(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	r.issue(operator, apikey.Issue{UserID: "rare"})
	r.clock.advance(time.Millisecond)
	issues := make([]apikey.Issue, 2499)
	for i := range issues {
		issues[i] = apikey.Issue{Name: fmt.Sprint(i), UserID: "many"}
	}
	if _, err := r.IssueMany(ctx, operator, issues); err != nil {
		t.Fatal(err)
	}
	q := apikey.ListQuery{Filter: apikey.Filter{UserID: "rare"}, Limit: 10}
	for i, want := range []int{0, 0, 1} {
		page, err := r.List(ctx, operator, q)
		if err != nil || len(page.Keys) != want || page.Next.IsZero() != (i == 2) {
			t.Fatalf("page %d: %d keys, next %s, %v", i, len(page.Keys), page.Next, err)
		}
		q.After = page.Next
	}
	seen := make(map[string]bool)
	for _, name := range r.list(operator, apikey.Filter{UserID: "many"}, 7) {
		if seen[name] {
			t.Fatalf("%s twice", name)
		}
		seen[name] = true
	}
	if len(seen) != 2499 {
		t.Errorf("%d keys", len(seen))
	}
}

func TestAllKeysOfAnOwnerOrAMinterAreRevokedAtOnce(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		own, self := r.holder(apikey.Issue{Name: "own", Scope: apikey.ScopeReadWrite})
		for i := range 5 {
			r.issue(self, apikey.Issue{Name: fmt.Sprint(i)})
		}
		bot := r.issue(operator, apikey.Issue{ServiceAccountID: "alice"})
		foreign := r.issue(apikey.Operator("globex"), apikey.Issue{UserID: "alice"})
		bob := r.issue(operator, apikey.Issue{UserID: "bob"})
		r.issue(operator, apikey.Issue{UserID: "alice", ExpiresAt: r.clock.in(time.Millisecond)})
		r.clock.advance(time.Second)

		reading := self
		reading.Scope = apikey.ScopeRead
		for name, c := range map[string]struct {
			by    apikey.Principal
			which apikey.Filter
			check func(error) bool
		}{
			"no condition": {operator, apikey.Filter{}, func(err error) bool { return isField(err, "userId") }},
			"a reader":     {reading, apikey.Filter{UserID: "alice"}, func(err error) bool { return errors.Is(err, apikey.ErrScope) }},
		} {
			if n, err := r.RevokeWhere(ctx, c.by, c.which); n != 0 || !c.check(err) {
				t.Errorf("%s: %d, %v", name, n, err)
			}
		}
		if n, err := r.RevokeWhere(ctx, self, apikey.Filter{MintedBy: own.Key.ID}); n != 5 || err != nil {
			t.Errorf("minted: %d, %v", n, err)
		}
		r.verify(own.Token, apikey.ReasonNone)
		r.issue(self, apikey.Issue{})
		if n, err := r.RevokeWhere(ctx, self, apikey.Filter{UserID: "alice"}); n != 2 || err != nil { // the caller's own one too
			t.Errorf("of alice: %d, %v", n, err)
		}
		r.verify(own.Token, apikey.ReasonRevoked)
		for _, token := range []string{bot.Token, foreign.Token, bob.Token} {
			r.verify(token, apikey.ReasonNone)
		}
		if n, err := r.RevokeWhere(ctx, operator, apikey.Filter{UserID: "alice"}); n != 0 || err != nil {
			t.Errorf("again: %d, %v", n, err)
		}
		if n, err := r.RevokeWhere(ctx, self, apikey.Filter{UserID: "bob"}); n != 0 || !errors.Is(err, apikey.ErrCaller) {
			t.Errorf("by a revoked key: %d, %v", n, err)
		}
	})
}

func TestKeyMadeWhileItsMakerIsRevokedIsRevokedToo(t *testing.T) {
	store := &between{Store: storagetest.NewMemory()}
	r := openRing(t, store)
	made, self := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite})
	var late apikey.Issued
	store.other = func() {
		r.clock.advance(time.Millisecond)
		late = r.issue(self, apikey.Issue{}) // newer than the page that was read
	}
	if n, err := r.RevokeWhere(ctx, operator, apikey.Filter{UserID: "alice"}); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	r.verify(made.Token, apikey.ReasonRevoked)
	r.verify(late.Token, apikey.ReasonRevoked)
}

func TestLeakedTokenEndsItsKey(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(apikey.Operator("globex"), apikey.Issue{})
		for _, token := range []string{wrongSecret(made.Token), flip(made.Token, 30), "nonsense"} {
			if _, err := r.RevokeLeaked(ctx, apikey.Leak{Token: token}); !errors.Is(err, apikey.ErrNotFound) {
				t.Errorf("%v", err)
			}
		}
		r.verify(made.Token, apikey.ReasonNone)
		leak := apikey.Leak{Token: made.Token, FoundAt: "https://example.com/", Address: "192.0.2.1", RequestID: "r"}
		if key, err := r.RevokeLeaked(ctx, leak); err != nil || key.RevokedFor != apikey.CauseLeaked {
			t.Errorf("%+v, %v", key, err)
		}
		last := r.seen.changes[len(r.seen.changes)-1]
		if last.Kind != apikey.ChangeRevoked || last.FoundAt != leak.FoundAt || last.By.Address != leak.Address || last.By.RequestID != "r" || last.By.ID() != apikey.OperatorName {
			t.Errorf("told %+v", last)
		}
		r.verify(made.Token, apikey.ReasonRevoked)
		if got := r.get(apikey.Operator("globex"), made.Key.ID); got.RevokedFor != apikey.CauseLeaked {
			t.Errorf("%+v", got)
		}

		// Whoever repeats a report causes no write.
		told, before := len(r.seen.changes), dump(t, r.store.Store)
		if key, err := r.RevokeLeaked(ctx, leak); err != nil || key.RevokedFor != apikey.CauseLeaked {
			t.Errorf("again: %+v, %v", key, err)
		}
		if len(r.seen.changes) != told || !maps.Equal(before, dump(t, r.store.Store)) {
			t.Error("a report that is repeated is a change again")
		}
	})
}

func TestLeakedTokenEndsAllKeysThatItWasImportedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := elsewhere
		policy.Retention = time.Hour
		k, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{Capacity: 1}, policy, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		r := &ring{Keyring: k, t: t, store: &probe{}, clock: newClock(), seen: &observer{}}
		r.importAll(foreign("sha256", "twice"))
		time.Sleep(time.Second)
		r.importAll(foreign("sha512", "twice"), foreign("sha512", "another"))
		if _, err := r.RevokeLeaked(ctx, apikey.Leak{Token: "twice"}); err != nil {
			t.Fatal(err)
		}
		r.verify("twice", apikey.ReasonRevoked)
		r.verify("another", apikey.ReasonNone)
		time.Sleep(2 * time.Hour)
		r.verify("twice", apikey.ReasonUnknown)
		r.verify("another", apikey.ReasonNone)
	})
}

func TestRevokingTheKeysOfAnOwnerNeedsAConditionBesidesTheirStatus(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	if n, err := r.RevokeWhere(ctx, operator, apikey.Filter{Status: apikey.StatusExpired}); n != 0 || !isField(err, "userId") {
		t.Errorf("%d revoked, %v", n, err)
	}
	r.verify(made.Token, apikey.ReasonNone)
}
