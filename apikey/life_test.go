package apikey_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// under returns the same ring under another policy.
func (r *ring) under(policy apikey.Policy) *ring {
	r.t.Helper()
	other := *r
	var err error
	if other.Keyring, err = r.With(policy, r.seen); err != nil {
		r.t.Fatal(err)
	}
	return &other
}

func pointer[T any](v T) *T { return &v }

// holder is the principal of a new key.
func (r *ring) holder(what apikey.Issue) (apikey.Issued, apikey.Principal) {
	r.t.Helper()
	made := r.issue(user("acme", "alice"), what)
	v := r.verify(made.Token, apikey.ReasonNone)
	return made, v.Principal()
}

func isField(err error, field string) bool {
	var wrong *apikey.FieldError
	return errors.As(err, &wrong) && wrong.Field == field
}

func TestUpdateIsInForceAtOnceAndForGood(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		end := r.clock.in(time.Hour)
		for name, c := range map[string]struct {
			what  apikey.Update
			check func(apikey.Key) bool
		}{
			"name":              {apikey.Update{Name: pointer("new")}, func(k apikey.Key) bool { return k.Name == "new" }},
			"description":       {apikey.Update{Description: pointer("new")}, func(k apikey.Key) bool { return k.Description == "new" }},
			"no description":    {apikey.Update{Description: pointer("")}, func(k apikey.Key) bool { return k.Description == "" }},
			"less scope":        {apikey.Update{Scope: pointer(apikey.ScopeRead)}, func(k apikey.Key) bool { return k.Scope == apikey.ScopeRead }},
			"an end":            {apikey.Update{ExpiresAt: &end}, func(k apikey.Key) bool { return k.ExpiresAt.Equal(end) }},
			"no end":            {apikey.Update{ExpiresAt: new(time.Time)}, func(k apikey.Key) bool { return k.ExpiresAt.IsZero() }},
			"nothing":           {apikey.Update{}, func(k apikey.Key) bool { return true }},
			"two things at one": {apikey.Update{Name: pointer("a"), Description: pointer("b")}, func(k apikey.Key) bool { return k.Name == "a" && k.Description == "b" }},
		} {
			t.Run(name, func(t *testing.T) {
				made := r.issue(operator, apikey.Issue{Name: "old", Description: "old", Scope: apikey.ScopeReadWrite, ExpiresAt: r.clock.in(2 * time.Hour)})
				r.remembered(made.Token)
				key, err := r.Update(ctx, user("acme", "bob"), made.Key.ID, c.what)
				if err != nil || !c.check(key) {
					t.Fatalf("%+v, %v", key, err)
				}
				want := key
				if got := r.get(operator, made.Key.ID); got != want {
					t.Errorf("stored %+v, want %+v", got, want)
				}
				v := r.verify(made.Token, apikey.ReasonNone)
				if v.Scope != key.Scope || !v.ExpiresAt.Equal(key.ExpiresAt) {
					t.Errorf("verdict %+v of %+v", v, key)
				}
				r.remembered(made.Token)
				if v := r.verify(made.Token, apikey.ReasonNone); v.Scope != key.Scope || !v.ExpiresAt.Equal(key.ExpiresAt) {
					t.Errorf("verdict of the index %+v of %+v", v, key)
				}
			})
		}
		if told := r.seen.told(); strings.Count(told, "updated") != 7 {
			t.Errorf("told of %q, want 7 updates: one changed nothing", told)
		}
	})
}

func TestUpdateThatIsRefusedChangesNothing(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		own, self := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite, ExpiresAt: r.clock.in(time.Hour)})
		dead, caller := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite})
		weak, weakened := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite})
		target := r.issue(operator, apikey.Issue{})
		revoked := r.issue(operator, apikey.Issue{})
		rotated := r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Hour)})
		r.revoke(operator, dead.Key.ID)
		r.revoke(operator, revoked.Key.ID)
		if _, err := r.Update(ctx, operator, weak.Key.ID, apikey.Update{Scope: pointer(apikey.ScopeRead)}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Rotate(ctx, operator, rotated.Key.ID, apikey.Rotate{Grace: time.Minute}); err != nil {
			t.Fatal(err)
		}
		reading := user("acme", "rita")
		reading.Scope = apikey.ScopeRead
		renamed := apikey.Update{Name: pointer("new")}
		until := func(d time.Duration) apikey.Update { return apikey.Update{ExpiresAt: pointer(r.clock.in(d))} }
		limited := r.under(apikey.Policy{MaxTTL: 24 * time.Hour})
		before := dump(t, r.store.Store)
		for name, c := range map[string]struct {
			ring *ring
			by   apikey.Principal
			id   apikey.ID
			what apikey.Update
			want any // an error, or the name of a field
		}{
			"a revoked key":                {r, operator, revoked.Key.ID, renamed, apikey.ErrNotActive},
			"the end of a rotated key":     {r, operator, rotated.Key.ID, until(2 * time.Hour), apikey.ErrNotActive},
			"a rotated key without end":    {r, operator, rotated.Key.ID, apikey.Update{ExpiresAt: new(time.Time)}, apikey.ErrNotActive},
			"own life longer":              {r, self, own.Key.ID, until(2 * time.Hour), apikey.ErrOwnLife},
			"own life without end":         {r, self, own.Key.ID, apikey.Update{ExpiresAt: new(time.Time)}, apikey.ErrOwnLife},
			"an end in the past":           {r, operator, target.Key.ID, until(-time.Second), "expiresAt"},
			"an end now":                   {r, operator, target.Key.ID, until(0), "expiresAt"},
			"an end past max_ttl":          {limited, operator, target.Key.ID, until(25 * time.Hour), "expiresAt"},
			"no end under max_ttl":         {limited, operator, target.Key.ID, apikey.Update{ExpiresAt: new(time.Time)}, "expiresAt"},
			"an empty name":                {r, operator, target.Key.ID, apikey.Update{Name: pointer("")}, "name"},
			"a name that holds a token":    {r, operator, target.Key.ID, apikey.Update{Name: pointer(target.Token)}, "name"},
			"a text that holds a token":    {r, operator, target.Key.ID, apikey.Update{Description: pointer("x " + target.Token)}, "description"},
			"a long description":           {r, operator, target.Key.ID, apikey.Update{Description: pointer(strings.Repeat("x", 1025))}, "description"},
			"by one who may only read":     {r, reading, target.Key.ID, renamed, apikey.ErrScope},
			"by a key revoked meanwhile":   {r, caller, target.Key.ID, renamed, apikey.ErrCaller},
			"by a key made less meanwhile": {r, weakened, target.Key.ID, renamed, apikey.ErrScope},
			"a right taken back by itself": {r, weakened, weak.Key.ID, apikey.Update{Scope: pointer(apikey.ScopeReadWrite)}, apikey.ErrScope},
			"of another organization":      {r, user("globex", "alice"), target.Key.ID, renamed, apikey.ErrNotFound},
			"a key that is not there":      {r, operator, apikey.ID{1}, renamed, apikey.ErrNotFound},
			"a dead caller, an absent key": {r, caller, apikey.ID{1}, renamed, apikey.ErrCaller},
		} {
			key, err := c.ring.Update(ctx, c.by, c.id, c.what)
			field, isName := c.want.(string)
			if isName && !isField(err, field) || !isName && !errors.Is(err, c.want.(error)) || key != (apikey.Key{}) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		if after := dump(t, r.store.Store); !sameRecords(before, after) {
			t.Error("the store has changed")
		}
		if _, err := r.Update(ctx, self, own.Key.ID, until(time.Minute)); err != nil {
			t.Errorf("own life made shorter: %v", err)
		}
		if _, err := r.Update(ctx, operator, rotated.Key.ID, renamed); err != nil {
			t.Errorf("name of a rotated key: %v", err)
		}
	})
}

// sameRecords leaves out the marks that a watch is followed by.
func sameRecords(a, b map[string]string) bool {
	for _, pair := range [][2]map[string]string{{a, b}, {b, a}} {
		for key, value := range pair[0] {
			if pair[1][key] != value && !strings.HasPrefix(key, "usage ") {
				return false
			}
		}
	}
	return true
}

func TestKeyMayTakeItsOwnRightAway(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for range 3 { // every third answer is lost
			own, self := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite})
			if key, err := r.Update(ctx, self, own.Key.ID, apikey.Update{Scope: pointer(apikey.ScopeRead)}); err != nil || key.Scope != apikey.ScopeRead {
				t.Fatalf("%+v, %v", key, err)
			}
			if v := r.verify(own.Token, apikey.ReasonNone); v.Scope != apikey.ScopeRead {
				t.Errorf("scope %s", v.Scope)
			}
		}
	})
}

// between is a store on which another writes between the two runs of an update.
type between struct {
	apikey.Store
	other func()
}

func (b *between) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if b.other == nil {
		return b.Store.Update(ctx, fn)
	}
	other := b.other
	b.other = nil
	again := errors.New("run again")
	if err := b.Store.Update(ctx, func(tx apikey.Tx) error { return errors.Join(fn(tx), again) }); !errors.Is(err, again) {
		return err
	}
	other()
	return b.Store.Update(ctx, fn)
}

func TestRightThatIsTakenAwayBetweenTwoRunsOfAWriteIsGone(t *testing.T) {
	for name, write := range map[string]func(r *ring, self apikey.Principal, id apikey.ID) error{
		"update": func(r *ring, self apikey.Principal, id apikey.ID) error {
			return second(r.Update(ctx, self, id, apikey.Update{Name: pointer("new"), Scope: pointer(apikey.ScopeReadWrite)}))
		},
		"rotate": func(r *ring, self apikey.Principal, id apikey.ID) error {
			return second(r.Rotate(ctx, self, id, apikey.Rotate{}))
		},
	} {
		store := &between{Store: storagetest.NewMemory()}
		r := openRing(t, store)
		own, self := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite})
		store.other = func() {
			if _, err := r.Update(ctx, operator, own.Key.ID, apikey.Update{Scope: pointer(apikey.ScopeRead)}); err != nil {
				t.Error(err)
			}
		}
		if err := write(r, self, own.Key.ID); !errors.Is(err, apikey.ErrScope) {
			t.Errorf("%s: %v, want ErrScope", name, err)
		}
		if v := r.verify(own.Token, apikey.ReasonNone); v.Scope != apikey.ScopeRead {
			t.Errorf("%s: the key has its right back", name)
		}
	}
}

func TestRotatedKeyEndsWithItsGraceExactly(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for name, c := range map[string]struct {
			policy           apikey.Policy
			life, grace, end time.Duration // life 0: no end
		}{
			"no grace":                      {apikey.Policy{}, 0, 0, 0},
			"grace":                         {apikey.Policy{}, 0, time.Hour, time.Hour},
			"negative grace":                {apikey.Policy{}, 0, -time.Hour, 0},
			"grace within its life":         {apikey.Policy{}, 2 * time.Hour, time.Hour, time.Hour},
			"grace past its life":           {apikey.Policy{}, time.Hour, 2 * time.Hour, time.Hour},
			"grace past the longest of all": {apikey.Policy{MaxTTL: time.Hour}, 0, 24 * time.Hour, time.Hour},
		} {
			t.Run(name, func(t *testing.T) {
				what := apikey.Issue{Name: "n", Description: "d", Scope: apikey.ScopeReadWrite, ServiceAccountID: "bot"}
				if c.life != 0 {
					what.ExpiresAt = r.clock.in(c.life)
				}
				old := r.issue(operator, what)
				r.remembered(old.Token)
				ring := r.under(c.policy)
				next, err := ring.Rotate(ctx, user("acme", "bob"), old.Key.ID, apikey.Rotate{Grace: c.grace})
				if err != nil {
					t.Fatal(err)
				}
				key := r.get(operator, old.Key.ID)
				if key.ReplacedBy != next.Key.ID || !key.ExpiresAt.Equal(r.clock.in(c.end)) || key.Revoked() {
					t.Errorf("old key %+v", key)
				}
				n := next.Key
				if n.Name != "n" || n.Description != "d" || n.Scope != apikey.ScopeReadWrite || n.ServiceAccountID != "bot" || n.OrganizationID != "acme" || n.CreatedBy != "bob" || n.ID == key.ID {
					t.Errorf("new key %+v", n)
				}
				if got := r.get(operator, n.ID); got != n {
					t.Errorf("stored %+v, told %+v", got, n)
				}
				r.verify(next.Token, apikey.ReasonNone)
				if c.end > 0 {
					r.clock.advance(c.end - time.Millisecond)
					r.verify(old.Token, apikey.ReasonNone)
					r.clock.advance(time.Millisecond)
				}
				r.verify(old.Token, apikey.ReasonExpired)
				if c.policy.MaxTTL == 0 && c.life == 0 {
					r.verify(next.Token, apikey.ReasonNone)
				}
			})
		}
	})
}

func TestNewKeyLivesAsLongAsTheOneItReplaces(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		policy            apikey.Policy
		life, asked, want time.Duration
		field             string
	}{
		"without end":               {apikey.Policy{}, 0, 0, 0, ""},
		"as long":                   {apikey.Policy{}, 10 * day, 0, 10 * day, ""},
		"no longer than max_ttl":    {apikey.Policy{MaxTTL: 5 * day}, 10 * day, 0, 5 * day, ""},
		"without end, default_ttl":  {apikey.Policy{DefaultTTL: 3 * day}, 0, 0, 3 * day, ""},
		"life goes before default":  {apikey.Policy{DefaultTTL: 3 * day}, 10 * day, 0, 10 * day, ""},
		"asked":                     {apikey.Policy{}, 10 * day, day, day, ""},
		"asked for more":            {apikey.Policy{}, 10 * day, 20 * day, 20 * day, ""},
		"asked for more than it is": {apikey.Policy{MaxTTL: 5 * day}, 10 * day, 6 * day, 0, "expiresAt"},
		"asked for the past":        {apikey.Policy{}, 0, -day, 0, "expiresAt"},
	} {
		t.Run(name, func(t *testing.T) {
			what := apikey.Issue{}
			if c.life != 0 {
				what.ExpiresAt = r.clock.in(c.life)
			}
			old := r.issue(operator, what)
			r.clock.advance(day / 2)
			how := apikey.Rotate{}
			if c.asked != 0 {
				how.ExpiresAt = r.clock.in(c.asked)
			}
			next, err := r.under(c.policy).Rotate(ctx, operator, old.Key.ID, how)
			if c.field != "" {
				if key := r.get(operator, old.Key.ID); !isField(err, c.field) || key.Rotated() {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := next.Key.ExpiresAt
			if c.want == 0 && !got.IsZero() || c.want != 0 && got.Sub(r.clock.now()).Round(time.Minute) != c.want {
				t.Errorf("ends %s, want in %s", got, c.want)
			}
		})
	}
}

func TestKeyOfManyCenturiesIsReplacedByOneThatEndsWithIt(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	end := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	made := r.issue(operator, apikey.Issue{ExpiresAt: end})
	next, err := r.Rotate(ctx, operator, made.Key.ID, apikey.Rotate{})
	if err != nil || !next.Key.ExpiresAt.Equal(end) {
		t.Errorf("it ends %v, %v", next.Key.ExpiresAt, err)
	}
}

func TestKeyIsRotatedOnceAndOnlyByWhoMay(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		ofUser := r.issue(operator, apikey.Issue{UserID: "alice"})
		ofAccount := r.issue(operator, apikey.Issue{ServiceAccountID: "bot"})
		revoked, expired, rotated := r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Second)}), r.issue(operator, apikey.Issue{})
		r.revoke(operator, revoked.Key.ID)
		if _, err := r.Rotate(ctx, operator, rotated.Key.ID, apikey.Rotate{Grace: time.Hour}); err != nil {
			t.Fatal(err)
		}
		r.clock.advance(time.Second)
		reading := user("acme", "alice")
		reading.Scope = apikey.ScopeRead
		bot := apikey.Principal{OrganizationID: "acme", ServiceAccountID: "bot", Scope: apikey.ScopeReadWrite}
		before := dump(t, r.store.Store)
		for name, c := range map[string]struct {
			by   apikey.Principal
			id   apikey.ID
			want error
		}{
			"revoked":                         {operator, revoked.Key.ID, apikey.ErrNotActive},
			"expired":                         {operator, expired.Key.ID, apikey.ErrNotActive},
			"rotated":                         {operator, rotated.Key.ID, apikey.ErrNotActive},
			"another user's":                  {user("acme", "bob"), ofUser.Key.ID, apikey.ErrOwner},
			"a user's, by a service account":  {bot, ofUser.Key.ID, apikey.ErrOwner},
			"another organization's":          {user("globex", "alice"), ofUser.Key.ID, apikey.ErrNotFound},
			"another organization's, account": {user("globex", "alice"), ofAccount.Key.ID, apikey.ErrNotFound},
			"by one who may only read":        {reading, ofUser.Key.ID, apikey.ErrScope},
		} {
			made, err := r.Rotate(ctx, c.by, c.id, apikey.Rotate{})
			if !errors.Is(err, c.want) || made != (apikey.Issued{}) {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		if !sameRecords(before, dump(t, r.store.Store)) {
			t.Error("the store has changed")
		}
		for name, c := range map[string]struct {
			by apikey.Principal
			id apikey.ID
		}{"by its user": {user("acme", "alice"), ofUser.Key.ID}, "by anybody": {user("acme", "bob"), ofAccount.Key.ID}} {
			if _, err := r.Rotate(ctx, c.by, c.id, apikey.Rotate{}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestKeyReplacesItselfWhateverTheStoreDoes(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		const times = 6
		own, self := r.holder(apikey.Issue{Scope: apikey.ScopeReadWrite})
		for range times {
			next, err := r.Rotate(ctx, self, own.Key.ID, apikey.Rotate{})
			if err != nil {
				t.Fatal(err)
			}
			r.verify(own.Token, apikey.ReasonExpired)
			if next.Key.MintedBy != own.Key.ID || r.get(operator, own.Key.ID).ReplacedBy != next.Key.ID {
				t.Errorf("%+v after %+v", next.Key, own.Key)
			}
			v := r.verify(next.Token, apikey.ReasonNone)
			own, self = next, v.Principal()
		}
		if stats, err := r.Stats(ctx); err != nil || stats.Issued != times+1 || stats.Revoked != 0 {
			t.Errorf("%+v, %v", stats, err)
		}
		if told := r.seen.told(); told != "issued"+strings.Repeat(" rotated", times) {
			t.Errorf("told %q", told)
		}
	})
}
