package apikey_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func TestStatsCountEveryKeyOnce(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		var made []apikey.Issued
		for i := range 20 {
			made = append(made, r.issue(user(fmt.Sprint("org", i%3), "u"), apikey.Issue{}))
		}
		for i := range 7 {
			for range 2 {
				r.revoke(user(fmt.Sprint("org", i%3), "u"), made[i].Key.ID)
			}
		}
		_, err := r.Issue(ctx, operator, apikey.Issue{})
		if err == nil {
			t.Error("a key without a name was issued")
		}
		if _, err := r.Revoke(ctx, operator, made[9].Key.ID); err == nil {
			t.Error("a foreign key was revoked")
		}
		stats, err := r.Stats(ctx)
		if err != nil || stats.Issued != 20 || stats.Revoked != 7 {
			t.Errorf("%+v, %v, want 20 issued, 7 revoked", stats, err)
		}
	})
}

func TestKeysThatExpireAreCounted(t *testing.T) {
	clock := newClock()
	store := storagetest.NewMemory()
	first := openRing(t, store)
	for range 2003 { // the count takes a thousand at a time
		first.issue(operator, apikey.Issue{ExpiresAt: clock.in(time.Hour)})
	}
	for range 2 {
		first.issue(operator, apikey.Issue{ExpiresAt: clock.in(3 * 24 * time.Hour)})
	}
	first.issue(operator, apikey.Issue{ExpiresAt: clock.in(8 * 24 * time.Hour)})
	first.issue(operator, apikey.Issue{})
	first.revoke(operator, first.issue(operator, apikey.Issue{ExpiresAt: clock.in(time.Hour)}).Key.ID)
	clock.advance(2 * time.Hour)
	r, err := apikey.Open(store, apikey.Settings{Clock: clock.now}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for deadline := time.Now().Add(30 * time.Second); ; {
		stats, err := r.Stats(ctx)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("not counted: %+v, %v", stats, err)
		}
		if stats.CountedAt.IsZero() {
			continue
		}
		if stats.Expired != 2003 || stats.ExpiringSoon != 2 || !stats.CountedAt.Equal(clock.now()) || stats.Issued != 2008 || stats.Revoked != 1 {
			t.Errorf("%+v, want 2003 expired, 2 expiring soon, 2008 issued, 1 revoked", stats)
		}
		return
	}
}

// Organizations whose ids begin like one another, keys made in one millisecond,
// every size of page.
func TestListShowsEachOrganizationItsKeysNewestFirst(t *testing.T) {
	organizations := []string{"acme", "acm", "acme2", "acme!", "acme~", "ACME", "a", strings.Repeat("a", 128), "~", "!"}
	onEveryStore(t, func(t *testing.T, r *ring) {
		const each = 23
		want := make(map[string][]apikey.Key)
		for i := range each {
			for _, organization := range organizations {
				want[organization] = append(want[organization], r.issue(user(organization, "u"), apikey.Issue{Name: fmt.Sprint(i)}).Key)
			}
			if i%5 == 0 {
				r.clock.advance(time.Millisecond)
			}
		}
		for organization, keys := range want {
			slices.SortFunc(keys, func(a, b apikey.Key) int { return strings.Compare(b.ID.String(), a.ID.String()) })
			for _, limit := range []int{1, 2, 7, 22, 23, 24, 100} {
				var got []apikey.Key
				pages := 0
				for after := (apikey.ID{}); ; pages++ {
					page, err := r.List(ctx, user(organization, "u"), apikey.ListQuery{After: after, Limit: limit})
					if err != nil {
						t.Fatal(err)
					}
					if len(page.Keys) > limit {
						t.Fatalf("a page of %d has %d keys", limit, len(page.Keys))
					}
					got = append(got, page.Keys...)
					if after = page.Next; after.IsZero() {
						break
					}
				}
				if !slices.Equal(got, keys) {
					t.Fatalf("organization %q in pages of %d: %d keys, want its %d, newest first", organization, limit, len(got), len(keys))
				}
				if want := (each - 1) / limit; pages != want {
					t.Errorf("%d keys in pages of %d make %d pages before the last, want %d", each, limit, pages, want)
				}
			}
			if !slices.IsSortedFunc(keys, func(a, b apikey.Key) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
				t.Error("not newest first")
			}
		}
		for _, stranger := range []string{"acme3", "ac", "acme\x00", "acme\x01", "\x00", "zzz"} {
			if page, err := r.List(ctx, user(stranger, "u"), apikey.ListQuery{Limit: 10}); err != nil || len(page.Keys) != 0 || !page.Next.IsZero() {
				t.Errorf("organization %q, which has no keys, sees %d, %v", stranger, len(page.Keys), err)
			}
		}
		// The operator of all organizations must not believe that there are none.
		everywhere := apikey.Operator("")
		if page, err := r.List(ctx, everywhere, apikey.ListQuery{Limit: 10}); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("a list of no organization has %d keys, %v", len(page.Keys), err)
		}
		if revoked, err := r.RevokeWhere(ctx, everywhere, apikey.Filter{UserID: "alice"}); !errors.Is(err, apikey.ErrNotFound) {
			t.Errorf("%d keys of no organization were revoked, %v", revoked, err)
		}
	})
}

func TestListTakesAnyLimitAndAnyCursor(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	var ids []apikey.ID
	for range 5 {
		r.clock.advance(time.Second)
		ids = append(ids, r.issue(operator, apikey.Issue{}).Key.ID)
	}
	r.clock.advance(time.Second)
	foreign := r.issue(user("zeta", "u"), apikey.Issue{}).Key.ID
	for name, c := range map[string]struct {
		query apikey.ListQuery
		keys  int
		next  bool
	}{
		"no limit":           {apikey.ListQuery{}, 1, true},
		"a negative limit":   {apikey.ListQuery{Limit: -7}, 1, true},
		"the smallest limit": {apikey.ListQuery{Limit: math.MinInt}, 1, true},
		"the largest limit":  {apikey.ListQuery{Limit: math.MaxInt}, 5, false},
		"after the last":     {apikey.ListQuery{After: ids[0], Limit: 9}, 0, false},
		"after the first":    {apikey.ListQuery{After: ids[4], Limit: 9}, 4, false},
		"after a foreign":    {apikey.ListQuery{After: foreign, Limit: 9}, 5, false},
		"after the largest":  {apikey.ListQuery{After: apikey.ID([]byte(strings.Repeat("\xff", 16))), Limit: 9}, 5, false},
		"after the smallest": {apikey.ListQuery{After: apikey.ID{15: 1}, Limit: 9}, 0, false},
	} {
		page, err := r.List(ctx, operator, c.query)
		if err != nil || len(page.Keys) != c.keys || page.Next.IsZero() == c.next {
			t.Errorf("%s: %d keys, next %s, %v", name, len(page.Keys), page.Next, err)
		}
	}
}
