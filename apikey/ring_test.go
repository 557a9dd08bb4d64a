package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
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
	updates atomic.Int64
	gone    atomic.Bool
	// replaced: somebody else has put another store in its place.
	replaced atomic.Bool
	marks    atomic.Int64
	heard    atomic.Pointer[string] // the last change that was reported
	// before runs before each update reaches the store, which it may spare by
	// returning an error.
	before atomic.Pointer[func() error]
}

func (p *probe) View(ctx context.Context, fn func(apikey.Reader) error) error {
	if p.gone.Load() {
		return fmt.Errorf("%w: gone for a test", apikey.ErrUnavailable)
	}
	if p.replaced.Load() {
		return fmt.Errorf("%w: %w for a test", apikey.ErrUnavailable, apikey.ErrReplaced)
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
	moved   []apikey.ClientChange
	untold  []int

	lookups atomic.Int64 // reads of the store for a check
}

func (o *observer) Changed(_ context.Context, c apikey.Change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changes = append(o.changes, c)
}

func (o *observer) StoreOperation(operation string, _ time.Duration, err error) {
	if operation == "lookup" {
		o.lookups.Add(1)
	}
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

func (o *observer) ClientChanged(_ context.Context, c apikey.ClientChange) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.moved = append(o.moved, c)
}

func (o *observer) ClientChangesUntold(changes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.untold = append(o.untold, changes)
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

func issueMany(t testing.TB, k *apikey.Keyring, n int) (made []apikey.Issued) {
	t.Helper()
	for len(made) < n {
		what := make([]apikey.Issue, min(1000, n-len(made)))
		for i := range what {
			what[i] = apikey.Issue{Name: "test", UserID: fmt.Sprint("user", len(made)+i)}
		}
		more, err := k.IssueMany(ctx, operator, what)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, more...)
	}
	return made
}

// issuedElsewhere returns a token that is good elsewhere.
func issuedElsewhere(t testing.TB, organization string) string {
	return openRing(t, storagetest.NewMemory()).issue(user(organization, "eve"), apikey.Issue{}).Token
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
