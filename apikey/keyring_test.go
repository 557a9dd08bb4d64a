package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

var ctx = context.Background()

// stores are what the Keyring must work over. The awkward one runs every update
// twice and loses the answer of every third, by turns after it was applied and
// without; it also tells what was written, so that the index follows a watch.
var stores = []struct {
	name string
	open func(t testing.TB) apikey.Store
}{
	{"memory", func(testing.TB) apikey.Store { return storagetest.NewMemory() }},
	{"awkward", func(testing.TB) apikey.Store {
		gateway := storagetest.NewCluster(storagetest.NewMemory()).Gateway()
		gateway.LoseAnswers(3)
		return gateway
	}},
	{"bolt", openBolt},
}

func openBolt(t testing.TB) apikey.Store {
	t.Helper()
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func onEveryStore(t *testing.T, test func(t *testing.T, r *ring)) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) { test(t, openRing(t, s.open(t))) })
	}
}

// ring is a Keyring, and all that it touches under the control of a test.
type ring struct {
	*apikey.Keyring
	t     testing.TB
	store *probe
	clock *clock
	seen  *observer
}

// The flush of a ring runs when a test says so.
func openRing(t testing.TB, store apikey.Store) *ring {
	t.Helper()
	return openRingWith(t, store, apikey.Settings{FlushInterval: time.Hour})
}

func openRingWith(t testing.TB, store apikey.Store, settings apikey.Settings) *ring {
	t.Helper()
	r := &ring{t: t, store: &probe{Store: store}, clock: newClock(), seen: &observer{}}
	settings.Clock = r.clock.now
	settings.Capacity = 1 // as small as it gets
	var opened apikey.Store = r.store
	if watcher, ok := store.(apikey.Watcher); ok {
		opened = watchedProbe{r.store, watcher}
	}
	var err error
	if r.Keyring, err = apikey.Open(opened, settings, apikey.Policy{}, r.seen); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// clock is moved by hand.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ms.Store(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time               { return time.UnixMilli(c.ms.Load()).UTC() }
func (c *clock) set(t time.Time)              { c.ms.Store(t.UnixMilli()) }
func (c *clock) advance(by time.Duration)     { c.ms.Add(by.Milliseconds()) }
func (c *clock) in(d time.Duration) time.Time { return c.now().Add(d) }

// probe counts what is asked of a store, and makes faults.
type probe struct {
	apikey.Store
	views, updates atomic.Int64
	gone           atomic.Bool
	marks          atomic.Int64
	heard          atomic.Pointer[string] // the last change that was reported
	// before runs before each update reaches the store, which it may spare by
	// returning an error.
	before atomic.Pointer[func() error]
}

func (p *probe) View(ctx context.Context, fn func(apikey.Reader) error) error {
	p.views.Add(1)
	if p.gone.Load() {
		return fmt.Errorf("%w: gone for a test", apikey.ErrUnavailable)
	}
	return p.Store.View(ctx, fn)
}

func (p *probe) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	p.updates.Add(1)
	if p.gone.Load() {
		return fmt.Errorf("%w: gone for a test", apikey.ErrUnavailable)
	}
	if before := p.before.Load(); before != nil {
		if err := (*before)(); err != nil {
			return err
		}
	}
	return p.Store.Update(ctx, fn)
}

// settle waits until every change so far has been reported.
func (p *probe) settle(t testing.TB) {
	t.Helper()
	if _, watched := p.Store.(apikey.Watcher); !watched {
		return
	}
	key := fmt.Appendf(nil, "settled %d", p.marks.Add(1))
	for deadline := time.Now().Add(30 * time.Second); p.heard.Load() == nil || *p.heard.Load() != string(key); {
		if time.Now().After(deadline) {
			t.Fatal("changes are not reported")
		}
		if err := p.Store.Update(ctx, func(tx apikey.Tx) error { return tx.Put(apikey.TableUsage, key, []byte{1}) }); err != nil && !errors.Is(err, apikey.ErrOutcomeUnknown) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

type watchedProbe struct {
	*probe
	watcher apikey.Watcher
}

func (p watchedProbe) Watch(ctx context.Context, synced func(), changed func(apikey.Table, []byte)) error {
	return p.watcher.Watch(ctx, synced, func(t apikey.Table, key []byte) {
		heard := string(key)
		changed(t, key)
		p.heard.Store(&heard)
	})
}

// observer keeps what it is told.
type observer struct {
	mu      sync.Mutex
	changes []apikey.Change
	faults  []string // operations of the store that failed
	flushes []error
	flushed int
	dropped int
}

func (o *observer) Changed(_ context.Context, c apikey.Change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes = append(o.changes, c)
}

func (o *observer) StoreOperation(operation string, _ time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.faults = append(o.faults, operation)
	}
}

func (o *observer) UsageFlushed(keys int, _ time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushes = append(o.flushes, err)
	o.flushed += keys
}

func (o *observer) UsageDropped(uses int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dropped += uses
}

func (o *observer) told() (kinds string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.changes {
		kinds += c.Kind.String() + " "
	}
	return strings.TrimSpace(kinds)
}

// What tests do all the time, failing at once when it fails.

var operator = apikey.Operator("acme")

func user(organization, id string) apikey.Principal {
	return apikey.Principal{OrganizationID: organization, UserID: id, Scope: apikey.ScopeReadWrite}
}

func (r *ring) issue(by apikey.Principal, what apikey.Issue) apikey.Issued {
	r.t.Helper()
	if what.Name == "" {
		what.Name = "test"
	}
	if by.Operator && what.UserID == "" && what.ServiceAccountID == "" {
		what.UserID = "alice"
	}
	made, err := r.Issue(ctx, by, what)
	if err != nil {
		r.t.Fatalf("issuing: %v", err)
	}
	return made
}

// verify fails the test unless the verdict has the reason.
func (r *ring) verify(token string, want apikey.Reason) apikey.Verdict {
	r.t.Helper()
	v, err := r.Verify(ctx, token)
	if v.Reason != want || (err != nil) != (want == apikey.ReasonUnavailable) {
		r.t.Fatalf("verdict %s, error %v, want %s", v.Reason, err, want)
	}
	if err != nil && !errors.Is(err, apikey.ErrUnavailable) {
		r.t.Fatalf("the error of a verdict is %v, want ErrUnavailable", err)
	}
	return v
}

// remembered verifies until the index answers, and will: no report of an earlier
// change is still under way.
func (r *ring) remembered(token string) {
	r.t.Helper()
	r.store.settle(r.t)
	r.indexed(token)
}

// indexed verifies until the index answers: over a store with a watch it begins
// to some time after Open.
func (r *ring) indexed(token string) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		before := r.IndexStats().Hits
		r.verify(token, apikey.ReasonNone)
		if r.IndexStats().Hits > before {
			return
		}
	}
	r.t.Fatal("the index does not answer")
}

func (r *ring) get(by apikey.Principal, id apikey.ID) apikey.Key {
	r.t.Helper()
	key, err := r.Get(ctx, by, id)
	if err != nil {
		r.t.Fatalf("getting %s: %v", id, err)
	}
	return key
}

func (r *ring) revoke(by apikey.Principal, id apikey.ID) apikey.Key {
	r.t.Helper()
	key, err := r.Revoke(ctx, by, id)
	if err != nil {
		r.t.Fatalf("revoking %s: %v", id, err)
	}
	return key
}

func (r *ring) flush() {
	r.t.Helper()
	if err := r.Flush(ctx); err != nil {
		r.t.Fatalf("flushing: %v", err)
	}
}

// dump is every record of a store.
func dump(t testing.TB, store apikey.Store) map[string]string {
	t.Helper()
	all := make(map[string]string)
	if err := store.View(ctx, func(tx apikey.Reader) error {
		for _, table := range apikey.Tables() {
			if err := tx.Scan(table, apikey.Range{}, func(key, value []byte) bool {
				all[fmt.Sprintf("%s %x", table, key)] = fmt.Sprintf("%x", value)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

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
					Name: c.what.Name, Description: c.what.Description, Scope: c.what.Scope, Prefix: made.Token[:25],
					CreatedAt: r.clock.now(), CreatedBy: c.createdBy, MintedBy: c.by.KeyID, ExpiresAt: c.what.ExpiresAt,
				}
				if made.Key != want {
					t.Errorf("issued %+v, want %+v", made.Key, want)
				}
				if !tokenShape.MatchString(made.Token) || made.Key.Prefix != "ak_"+made.Key.ID.String()[4:] {
					t.Errorf("token %q, prefix %q, id %s", made.Token, made.Key.Prefix, made.Key.ID)
				}
				if got := r.get(c.by, made.Key.ID); got != want {
					t.Errorf("reads as %+v, want %+v", got, want)
				}
				for _, from := range []string{"store", "index"} {
					v := r.verify(made.Token, apikey.ReasonNone)
					p := apikey.Principal{OrganizationID: c.by.OrganizationID, UserID: c.user, ServiceAccountID: c.account, KeyID: made.Key.ID, Scope: c.what.Scope}
					if !v.Allowed() || v.Principal() != p || v.KeyName != made.Key.ID.String() || v.PrincipalID() != c.user+c.account || !v.ExpiresAt.Equal(c.what.ExpiresAt) {
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
	before := dump(t, r.store.Store)
	for name, c := range map[string]struct {
		by    apikey.Principal
		what  apikey.Issue
		field string
	}{
		"operator names nobody":            {operator, apikey.Issue{}, "userId"},
		"operator names two":               {operator, apikey.Issue{UserID: "a", ServiceAccountID: "b"}, "userId"},
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
		"service account of a tab":         {user("acme", "alice"), apikey.Issue{ServiceAccountID: "\t"}, "serviceAccountId"},
	} {
		c.what.Name = "n"
		made, err := r.Issue(ctx, c.by, c.what)
		var field *apikey.FieldError
		if !errors.As(err, &field) || field.Field != c.field || made.Token != "" {
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
			"foreign brand, right checksum":    {apikey.Resum("bk" + made.Token[2:68]), apikey.ReasonMalformed, 0},
			"empty":                            {"", apikey.ReasonMalformed, 0},
			"512 bytes":                        {strings.Repeat("a", 512), apikey.ReasonMalformed, 0},
			"a megabyte":                       {strings.Repeat("ak_", 1<<20/3), apikey.ReasonMalformed, 0},
			"id only":                          {made.Key.ID.String(), apikey.ReasonMalformed, 0},
			"public start":                     {made.Key.Prefix, apikey.ReasonMalformed, 0},
			"an id of more than 128 bits":      {apikey.Resum("ak_" + strings.Repeat("z", 22) + made.Token[25:68]), apikey.ReasonMalformed, 0},
			"the zero id, which no key has":    {apikey.Resum("ak_" + strings.Repeat("0", 22) + made.Token[25:68]), apikey.ReasonUnknown, 1},
			"right secret with trailing space": {made.Token + " ", apikey.ReasonMalformed, 0},
		} {
			before := r.store.views.Load()
			v := r.verify(c.token, c.reason)
			if got := r.store.views.Load() - before; got != c.lookups {
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

// issuedElsewhere returns a token that is good elsewhere.
func issuedElsewhere(t testing.TB, organization string) string {
	return openRing(t, storagetest.NewMemory()).issue(user(organization, "eve"), apikey.Issue{}).Token
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
		for _, stranger := range []string{"acme3", "ac", "acme\x00", "", "acme\x01", "\x00", "zzz"} {
			if page, err := r.List(ctx, user(stranger, "u"), apikey.ListQuery{Limit: 10}); err != nil || len(page.Keys) != 0 || !page.Next.IsZero() {
				t.Errorf("organization %q, which has no keys, sees %d, %v", stranger, len(page.Keys), err)
			}
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

func TestRetiredPrefixesAreAcceptedAndNewKeysHaveTheNew(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		old := r.issue(operator, apikey.Issue{})
		seen := &observer{}
		renamed, err := r.With(apikey.Policy{Prefix: "brand", RetiredPrefixes: []string{"ak"}}, seen)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := renamed.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
		if err != nil || !strings.HasPrefix(fresh.Token, "brand_") || fresh.Key.Prefix != fresh.Token[:28] {
			t.Fatalf("issued %q with prefix %q, %v", fresh.Token, fresh.Key.Prefix, err)
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

// wrongSecret returns a token of the same key that only the digest tells apart.
func wrongSecret(token string) string { return apikey.Resum(flip(token, 40)[:68]) }

// flip changes the letter at i for another.
func flip(token string, i int) string {
	c := byte('0')
	if token[i] == c {
		c = '1'
	}
	return token[:i] + string(c) + token[i+1:]
}
