package apikey_test

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

var tokenShape = regexp.MustCompile(`^ak_[0-9A-Za-z]{71}$`)

func TestIssuedKeyIsAcceptedAndSpeaksForItsOwner(t *testing.T) {
	robot := apikey.Principal{OrganizationID: "acme", ServiceAccountID: "robot", Scope: apikey.ScopeReadWrite}
	onEveryStore(t, func(t *testing.T, r *ring) {
		minter := r.issue(user("acme", "alice"), apikey.Issue{Scope: apikey.ScopeReadWrite})
		alice := r.verify(minter.Token, apikey.ReasonNone)
		for name, c := range map[string]struct {
			by                       apikey.Principal
			what                     apikey.Issue
			user, account, createdBy string
		}{
			"a user for itself":                        {user("acme", "alice"), apikey.Issue{}, "alice", "", "alice"},
			"a user for a service account":             {user("acme", "alice"), apikey.Issue{ServiceAccountID: "robot"}, "", "robot", "alice"},
			"a service account for itself":             {robot, apikey.Issue{}, "", "robot", "robot"},
			"a service account that names itself":      {robot, apikey.Issue{ServiceAccountID: "robot"}, "", "robot", "robot"},
			"a service account for another":            {robot, apikey.Issue{ServiceAccountID: "probe"}, "", "probe", "robot"},
			"the operator for a user":                  {operator, apikey.Issue{UserID: "bob"}, "bob", "", "operator"},
			"the operator for a service account":       {operator, apikey.Issue{ServiceAccountID: "robot"}, "", "robot", "operator"},
			"who presents a key":                       {alice.Principal(), apikey.Issue{}, "alice", "", "alice"},
			"with everything":                          {alice.Principal(), apikey.Issue{ServiceAccountID: "robot", Scope: apikey.ScopeReadWrite, Description: "d", ExpiresAt: r.clock.in(time.Hour)}, "", "robot", "alice"},
			"an owner of the longest and oddest name":  {operator, apikey.Issue{UserID: strings.Repeat("~!", 64)}, strings.Repeat("~!", 64), "", "operator"},
			"an organization of the longest, and user": {user(strings.Repeat("o", 128), "u"), apikey.Issue{}, "u", "", "u"},
		} {
			t.Run(name, func(t *testing.T) {
				r.clock.advance(time.Second)
				c.what.Name = "name of " + name
				made, err := r.Issue(ctx, c.by, c.what)
				if err != nil {
					t.Fatal(err)
				}
				want := apikey.Key{
					ID: made.Key.ID, OrganizationID: c.by.OrganizationID, UserID: c.user, ServiceAccountID: c.account,
					Name: c.what.Name, Description: c.what.Description, Scope: c.what.Scope, Prefix: apikey.DefaultPrefix,
					CreatedAt: r.clock.now(), CreatedBy: c.createdBy, MintedBy: c.by.KeyID, ExpiresAt: c.what.ExpiresAt,
				}
				if made.Key != want {
					t.Errorf("issued %+v, want %+v", made.Key, want)
				}
				if start := "ak_" + made.Key.ID.String()[4:]; !tokenShape.MatchString(made.Token) || made.Key.TokenStart() != start || made.Token[:25] != start {
					t.Errorf("token %q, prefix %q, id %s", made.Token, made.Key.TokenStart(), made.Key.ID)
				}
				if got := r.get(c.by, made.Key.ID); got != want {
					t.Errorf("reads as %+v, want %+v", got, want)
				}
				for _, from := range []string{"store", "index"} {
					v := r.verify(made.Token, apikey.ReasonNone)
					p := apikey.Principal{OrganizationID: c.by.OrganizationID, UserID: c.user, ServiceAccountID: c.account, KeyID: made.Key.ID, Scope: c.what.Scope}
					if !v.Allowed() || v.Principal() != p || v.KeyID != made.Key.ID || v.PrincipalID() != c.user+c.account || !v.ExpiresAt.Equal(c.what.ExpiresAt) {
						t.Errorf("from the %s: %+v", from, v)
					}
				}
			})
		}
	})
}

func TestTokenIsNowhereInTheStore(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{Name: "n", Description: "d"})
		v := r.verify(made.Token, apikey.ReasonNone)
		r.Use(&v, "192.0.2.1", "ua")
		r.flush()
		secret := made.Token[25:68]
		for key, value := range dump(t, r.store.Store) {
			if strings.Contains(value, fmt.Sprintf("%x", secret[:8])) || strings.Contains(value, fmt.Sprintf("%x", secret[35:])) {
				t.Errorf("%s holds a part of the secret: %s", key, value)
			}
		}
	})
}

func TestOwnerMustBeOneThatTheCallerMayName(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	token := r.issue(operator, apikey.Issue{}).Token
	before := dump(t, r.store.Store)
	for name, c := range map[string]struct {
		by    apikey.Principal
		what  apikey.Issue
		field string
	}{
		"operator names nobody":            {operator, apikey.Issue{}, "userId"},
		"user names another":               {user("acme", "alice"), apikey.Issue{UserID: "bob"}, "userId"},
		"user names two":                   {user("acme", "alice"), apikey.Issue{UserID: "alice", ServiceAccountID: "b"}, "userId"},
		"caller without a name":            {user("acme", ""), apikey.Issue{}, "userId"},
		"caller without an organization":   {user("", "alice"), apikey.Issue{}, "organization"},
		"operator without an organization": {apikey.Operator(""), apikey.Issue{UserID: "alice"}, "organization"},
		"organization with a NUL":          {user("ac\x00me", "alice"), apikey.Issue{}, "organization"},
		"organization too long":            {user(strings.Repeat("o", 129), "alice"), apikey.Issue{}, "organization"},
		"user with a space":                {operator, apikey.Issue{UserID: "a b"}, "userId"},
		"user with a line break":           {operator, apikey.Issue{UserID: "a\r\nX-Evil: 1"}, "userId"},
		"user not ASCII":                   {operator, apikey.Issue{UserID: "zoë"}, "userId"},
		"user with DEL":                    {operator, apikey.Issue{UserID: "a\x7f"}, "userId"},
		"user too long":                    {operator, apikey.Issue{UserID: strings.Repeat("u", 129)}, "userId"},
		"service account too long":         {operator, apikey.Issue{ServiceAccountID: strings.Repeat("u", 129)}, "serviceAccountId"},
		"a token for a user":               {operator, apikey.Issue{UserID: token}, "userId"},
		"a token for a service account":    {user("acme", "alice"), apikey.Issue{ServiceAccountID: token}, "serviceAccountId"},
		"a token without its checksum":     {operator, apikey.Issue{UserID: token[:len(token)-6]}, "userId"},
		"a token for an organization":      {apikey.Operator(token), apikey.Issue{UserID: "alice"}, "organization"},
		"service account of a tab":         {user("acme", "alice"), apikey.Issue{ServiceAccountID: "\t"}, "serviceAccountId"},
	} {
		c.what.Name = "n"
		made, err := r.Issue(ctx, c.by, c.what)
		var field *apikey.FieldError
		if !errors.As(err, &field) || field.Field != c.field || made.Token != "" || strings.Contains(err.Error(), token[3:40]) {
			t.Errorf("%s: %v, want an error about %s", name, err, c.field)
		}
	}
	if after := dump(t, r.store.Store); len(after) != len(before) {
		t.Errorf("refusals have left %v", after)
	}
}

// The attempt costs the gateway no lookup when the text alone tells, and one
// when it does not; never a write, and never room in the index.
func TestWhatAStrangerSendsCostsAtMostOneLookup(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		other := r.issue(operator, apikey.Issue{})
		strange := issuedElsewhere(t, "acme")
		splice := apikey.Resum(made.Token[:25] + other.Token[25:68])
		entries, updates := r.IndexStats().Entries, r.store.updates.Load()
		for name, c := range map[string]struct {
			token   string
			reason  apikey.Reason
			lookups int64
		}{
			"unknown":                          {strange, apikey.ReasonUnknown, 1},
			"another key's secret":             {splice, apikey.ReasonUnknown, 1},
			"mistyped":                         {apikey.Resum(made.Token[:68])[:73] + "~", apikey.ReasonMalformed, 0},
			"bad checksum":                     {flip(made.Token, 30), apikey.ReasonChecksum, 0},
			"bad checksum in the id":           {flip(made.Token, 10), apikey.ReasonChecksum, 0},
			"known id, secret with a space":    {apikey.Resum(made.Token[:67] + " "), apikey.ReasonMalformed, 0},
			"known id, secret with a NUL":      {apikey.Resum(made.Token[:25] + "\x00" + made.Token[26:68]), apikey.ReasonMalformed, 0},
			"unknown id, secret not ASCII":     {apikey.Resum(strange[:66] + "é"), apikey.ReasonMalformed, 0},
			"unknown id, secret with a hyphen": {apikey.Resum(strange[:67] + "-"), apikey.ReasonMalformed, 0},
			"foreign brand, right checksum":    {apikey.Resum("bk" + made.Token[2:68]), apikey.ReasonMalformed, 0},
			"empty":                            {"", apikey.ReasonMalformed, 0},
			"512 bytes":                        {strings.Repeat("a", 512), apikey.ReasonMalformed, 0},
			"a megabyte":                       {strings.Repeat("ak_", 1<<20/3), apikey.ReasonMalformed, 0},
			"id only":                          {made.Key.ID.String(), apikey.ReasonMalformed, 0},
			"public start":                     {made.Key.TokenStart(), apikey.ReasonMalformed, 0},
			"an id of more than 128 bits":      {apikey.Resum("ak_" + strings.Repeat("z", 22) + made.Token[25:68]), apikey.ReasonMalformed, 0},
			"the zero id, which no key has":    {apikey.Resum("ak_" + strings.Repeat("0", 22) + made.Token[25:68]), apikey.ReasonUnknown, 1},
			"right secret with trailing space": {made.Token + " ", apikey.ReasonMalformed, 0},
		} {
			before := r.seen.lookups.Load()
			v := r.verify(c.token, c.reason)
			if got := r.seen.lookups.Load() - before; got != c.lookups {
				t.Errorf("%s: %d lookups, want %d", name, got, c.lookups)
			}
			if v != (apikey.Verdict{Reason: c.reason}) {
				t.Errorf("%s: the verdict tells %+v", name, v)
			}
		}
		if r.IndexStats().Entries != entries || r.store.updates.Load() != updates {
			t.Errorf("strangers have filled the index or written to the store")
		}
	})
}

func TestKeyEndsExactlyWhenItExpires(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		end := r.clock.in(time.Second)
		made := r.issue(operator, apikey.Issue{ExpiresAt: end})
		unused := r.issue(operator, apikey.Issue{ExpiresAt: end}) // not in the index before
		r.verify(made.Token, apikey.ReasonNone)
		r.clock.set(end.Add(-time.Millisecond))
		r.verify(made.Token, apikey.ReasonNone)
		r.clock.set(end)
		for _, token := range []string{made.Token, unused.Token} {
			for range 2 {
				if v := r.verify(token, apikey.ReasonExpired); v.KeyID.IsZero() || !v.ExpiresAt.Equal(end) || v.Allowed() {
					t.Errorf("verdict %+v", v)
				}
			}
		}
		r.verify(wrongSecret(made.Token), apikey.ReasonUnknown) // nothing is said to who lacks the secret
		r.clock.advance(10 * 365 * 24 * time.Hour)
		r.verify(made.Token, apikey.ReasonExpired)
		if key := r.get(operator, made.Key.ID); !key.Expired(r.clock.now()) || key.Revoked() {
			t.Errorf("%+v", key)
		}
	})
}

// Ten years forward and back: nothing was swept away in between.
func TestClockThatJumpsForwardKillsNoKeyForGood(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Hour)})
	today := r.clock.now()
	r.clock.advance(10 * 365 * 24 * time.Hour)
	r.verify(made.Token, apikey.ReasonExpired)
	r.clock.set(today)
	r.verify(made.Token, apikey.ReasonNone)
}

func TestExpiryMustBeInTheFuture(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	now := r.clock.now()
	for name, c := range map[string]struct {
		at time.Time
		ok bool
	}{
		"never":                        {time.Time{}, true},
		"a millisecond from now":       {now.Add(time.Millisecond), true},
		"far away":                     {time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), true},
		"in another zone":              {now.Add(time.Hour).In(time.FixedZone("", -12*3600)), true},
		"now":                          {now, false},
		"within this millisecond":      {now.Add(999 * time.Microsecond), false},
		"before":                       {now.Add(-time.Hour), false},
		"the first moment of 1970":     {time.UnixMilli(0), false},
		"the first millisecond of it":  {time.Unix(0, 999_999), false},
		"the last before it":           {time.UnixMilli(-1), false},
		"year one and a millisecond":   {time.Time{}.Add(time.Millisecond), false},
		"less than that after nothing": {time.Time{}.Add(time.Nanosecond), false},
	} {
		made, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u", ExpiresAt: c.at})
		var field *apikey.FieldError
		switch {
		case c.ok && err != nil, !c.ok && (!errors.As(err, &field) || field.Field != "expiresAt"):
			t.Errorf("%s: %v", name, err)
		case c.ok:
			if !made.Key.ExpiresAt.Equal(c.at) || made.Key.ExpiresAt.Location() != time.UTC || r.get(operator, made.Key.ID) != made.Key {
				t.Errorf("%s: expires at %v, want %v", name, made.Key.ExpiresAt, c.at)
			}
		}
	}
}

func TestRevokedKeyIsRefusedForGood(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		held := r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Hour)})
		unused := r.issue(operator, apikey.Issue{})
		stays := r.issue(operator, apikey.Issue{})
		r.verify(held.Token, apikey.ReasonNone)
		r.verify(stays.Token, apikey.ReasonNone)
		r.clock.advance(time.Minute)
		at := r.clock.now()
		for _, made := range []apikey.Issued{held, unused} {
			want := made.Key
			want.RevokedAt = at
			if key := r.revoke(operator, made.Key.ID); key != want {
				t.Errorf("revoking answers %+v, want %+v", key, want)
			}
			for range 3 {
				if v := r.verify(made.Token, apikey.ReasonRevoked); v.KeyID != made.Key.ID || v.Allowed() {
					t.Errorf("%+v", v)
				}
			}
			r.verify(wrongSecret(made.Token), apikey.ReasonUnknown) // who lacks the secret learns nothing
			r.clock.advance(time.Second)
			if again := r.revoke(operator, made.Key.ID); again != want {
				t.Errorf("revoking again answers %+v, want %+v", again, want)
			}
			if got := r.get(operator, made.Key.ID); got != want {
				t.Errorf("reads as %+v, want %+v", got, want)
			}
			r.clock.set(at)
		}
		r.clock.advance(2 * time.Hour) // past its expiry it is revoked still
		r.verify(held.Token, apikey.ReasonRevoked)
		r.verify(stays.Token, apikey.ReasonNone)
		if got := r.seen.told(); got != "issued issued issued revoked revoked" {
			t.Errorf("the observer was told: %s", got)
		}
	})
}

func TestRetiredPrefixesAreAcceptedAndNewKeysHaveTheNew(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		old := r.issue(operator, apikey.Issue{})
		seen := &observer{}
		renamed, err := r.With(apikey.Policy{Prefix: "brand", RetiredPrefixes: []string{"ak"}}, seen)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := renamed.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
		if err != nil || !strings.HasPrefix(fresh.Token, "brand_") || fresh.Key.TokenStart() != fresh.Token[:28] {
			t.Fatalf("issued %q with prefix %q, %v", fresh.Token, fresh.Key.TokenStart(), err)
		}
		if seen.told() != "issued" || r.seen.told() != "issued" {
			t.Errorf("observers were told %q and %q, want each its own", r.seen.told(), seen.told())
		}
		for _, token := range []string{old.Token, fresh.Token} {
			if v, err := renamed.Verify(ctx, token); err != nil || !v.Allowed() {
				t.Errorf("under the new policy %q is %s, %v", token, v.Reason, err)
			}
		}
		r.verify(fresh.Token, apikey.ReasonMalformed) // the other policy does not know the brand
		r.verify(apikey.Resum("brand"+old.Token[2:68]), apikey.ReasonMalformed)
		if got := r.get(operator, fresh.Key.ID); got != fresh.Key {
			t.Errorf("reads as %+v, want %+v", got, fresh.Key)
		}
		// One set of keys: what one revokes, the other refuses.
		if _, err := renamed.Revoke(ctx, operator, old.Key.ID); err != nil {
			t.Fatal(err)
		}
		r.verify(old.Token, apikey.ReasonRevoked)
		for _, policy := range []apikey.Policy{{Prefix: "a-b"}, {Prefix: strings.Repeat("a", 17)}, {RetiredPrefixes: []string{""}}, {RetiredPrefixes: []string{"ak", "_"}}} {
			if _, err := r.With(policy, nil); err == nil {
				t.Errorf("policy %+v was accepted", policy)
			}
		}
	})
	if _, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{}, apikey.Policy{Prefix: "ö"}, nil); err == nil {
		t.Error("Open accepted a prefix that is none")
	}
}

func TestManyKeysAreIssuedTogetherOrNotAtAll(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		what := make([]apikey.Issue, 300)
		for i := range what {
			what[i] = apikey.Issue{Name: fmt.Sprint("key ", i), Scope: apikey.Scope(i % 2)}
		}
		by := user("acme", "alice")
		made, err := r.IssueMany(ctx, by, what)
		if err != nil || len(made) != len(what) {
			t.Fatalf("%d keys, %v", len(made), err)
		}
		for i, m := range made {
			if v := r.verify(m.Token, apikey.ReasonNone); v.KeyID != m.Key.ID || m.Key.Name != what[i].Name || m.Key.Scope != what[i].Scope || m.Key.UserID != "alice" {
				t.Fatalf("key %d is %+v", i, m.Key)
			}
			if r.get(by, m.Key.ID) != m.Key {
				t.Fatalf("key %d reads otherwise", i)
			}
		}
		if none, err := r.IssueMany(ctx, by, nil); err != nil || len(none) != 0 {
			t.Errorf("no keys at all: %v, %v", none, err)
		}
		before := dump(t, r.store.Store)
		for name, spoil := range map[string]func(what []apikey.Issue){
			"the first": func(what []apikey.Issue) { what[0].Name = "" },
			"the last":  func(what []apikey.Issue) { what[len(what)-1].ExpiresAt = r.clock.now() },
		} {
			spoiled := slices.Clone(what)
			spoil(spoiled)
			var field *apikey.FieldError
			if made, err := r.IssueMany(ctx, by, spoiled); !errors.As(err, &field) || made != nil {
				t.Errorf("%s is wrong: %d keys, %v", name, len(made), err)
			}
		}
		if made, err := r.IssueMany(ctx, apikey.Principal{OrganizationID: "acme", UserID: "alice"}, what); err != apikey.ErrScope || made != nil {
			t.Errorf("by a reader: %d keys, %v", len(made), err)
		}
		if !maps.Equal(before, dump(t, r.store.Store)) {
			t.Error("some keys were issued")
		}
		if stats, err := r.Stats(ctx); err != nil || stats.Issued != 300 || len(r.seen.changes) != 300 {
			t.Errorf("%+v, %v; the observer was told of %d", stats, err, len(r.seen.changes))
		}
	})
}

func TestHoldsTokenKnowsEveryPrefixInForce(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	token := r.issue(operator, apikey.Issue{}).Token
	renamed, err := r.With(apikey.Policy{Prefix: "brand", RetiredPrefixes: []string{"ak"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.HoldsToken("see "+token) || r.HoldsToken("brand"+token[2:]) || r.HoldsToken("nothing") {
		t.Error("under the first policy")
	}
	if !renamed.HoldsToken("see "+token) || !renamed.HoldsToken("brand"+token[2:]) || renamed.HoldsToken("nothing") {
		t.Error("under the second policy")
	}
}

func TestKeyringWorksWithoutObserver(t *testing.T) {
	k, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := k.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := k.Verify(ctx, made.Token)
	if err != nil || !v.Allowed() || k.Now().Sub(v.KeyID.Time()).Abs() > time.Hour {
		t.Errorf("%+v, %v", v, err)
	}
	k.Use(&v, "", "")
	if _, err := k.Revoke(ctx, operator, made.Key.ID); err != nil {
		t.Error(err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}
