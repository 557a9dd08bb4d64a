package apikey

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrNotFound says that there is no such key, or none that the caller
	// may know of.
	ErrNotFound = errors.New("no such key")
	// ErrScope says that the caller's scope does not allow the call.
	ErrScope = errors.New("the scope of the caller does not allow this")
	// ErrCaller says that the caller's own key ended between its check and
	// the write.
	ErrCaller = errors.New("the key of the caller is no longer valid")
)

// Settings are what a Keyring is opened with. The zero value of each field
// stands for its default.
type Settings struct {
	// Capacity is how many keys the index holds; the store may hold any
	// number. Rounded up to a power of two. Default: 131,072, which takes up
	// to 18 MiB, 4 MiB more where all are imported, and the texts of as many ids.
	Capacity int
	// FlushInterval is how often usage is brought to the store, and so how
	// much of it a crash can lose. Default: 1 s.
	FlushInterval time.Duration
	// UsageResolution is how long the store may stay behind while nothing but
	// the time of last use and the count changes. Default: 1 min.
	UsageResolution time.Duration
	// Clock tells the time. Default: NewClock().
	Clock Clock
}

// Keyring holds every rule about keys. It answers checks from its index and
// keeps keys and their usage in a store. All methods are safe for concurrent
// use.
type Keyring struct {
	*core
	policy   Policy
	prefixes []string // with their underscore, the one of new tokens first
	peppers  peppers
	observer Observer

	ownKinds     []foreignKind // of digests of foreign tokens that are made here
	foreign      map[pepperID]*pepper
	foreignNames map[string]*pepper
}

// core is what Keyrings of one store share, whatever their policies.
type core struct {
	store    Store
	index    *index
	recorder *recorder
	clock    Clock
	census   atomic.Pointer[census]
	renewals renewals

	kinds       atomic.Pointer[knownKinds] // nil: never read
	kindsMu     sync.Mutex
	kindChanges int

	opened     time.Time     // with its monotonic reading
	retention  atomic.Int64  // of the policy that was put in force last
	enforced   chan struct{} // tells the census of another retention
	flushEvery time.Duration
	flushing   sync.Mutex // one flush at a time
	stop       context.CancelFunc
	closing    <-chan struct{}    // closed by stop
	abandon    context.CancelFunc // of a flush that goes on after stop
	stopped    sync.WaitGroup
}

// openTimeout bounds the first read: a store that is out of reach must not keep a
// server from starting.
const openTimeout = 5 * time.Second

// Open returns a Keyring over a store, which it owns from then on. Close it to
// bring the last usage to the store.
func Open(store Store, settings Settings, policy Policy, observer Observer) (*Keyring, error) {
	if settings.Capacity == 0 {
		settings.Capacity = 1 << 17
	}
	if settings.FlushInterval == 0 {
		settings.FlushInterval = time.Second
	}
	if settings.UsageResolution == 0 {
		settings.UsageResolution = time.Minute
	}
	if settings.Clock == nil {
		settings.Clock = NewClock()
	}
	index := newIndex(settings.Capacity)
	shared := &core{
		store: store, index: index, clock: settings.Clock, flushEvery: settings.FlushInterval, opened: time.Now(),
		enforced: make(chan struct{}, 1),
		recorder: newRecorder(index, settings.UsageResolution, settings.FlushInterval),
	}
	k, err := (&Keyring{core: shared}).With(policy, observer)
	if err != nil {
		return nil, err
	}
	k.Enforce()
	// Known from the start, so that a stranger's first token costs no lookup.
	// What fails here is tried again with that token.
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	_, _ = k.foreignKinds(ctx)
	k.start()
	return k, nil
}

// Now returns the time by which the Keyring judges expiry.
func (k *Keyring) Now() time.Time { return k.clock() }

// Verify says whether a token is that of a good key. A wrong checksum costs no
// lookup, an unknown key one, and neither a write. The error, if any, wraps
// ErrUnavailable: it could not be found out, and the verdict says
// ReasonUnavailable.
func (k *Keyring) Verify(ctx context.Context, token string) (v Verdict, err error) {
	id, secret, reason := parseToken(token, k.prefixes)
	switch {
	case reason == ReasonMalformed && !hasAnyPrefix(token, k.prefixes):
		return k.verifyForeign(ctx, token) // whatever has our prefix is ours
	case reason != ReasonNone:
		v.Reason = reason
		return v, nil
	}
	var e entryView
	if !k.index.find(id, &e) {
		if !isBase62(secret) {
			return Verdict{Reason: ReasonMalformed}, nil
		}
		return k.verifyStored(ctx, id, secret)
	}
	if !k.peppers.can(&e.digest) { // a Keyring with other peppers read it
		if e.state&stateRevoked != 0 {
			return Verdict{Reason: ReasonUnknown}, nil // whatever the secret is
		}
		return Verdict{Reason: ReasonUnavailable}, unavailable("checking key "+id.String(), errNoPepper)
	}
	e.judge(&v, k.peppers, id, secret, k.clock().UnixMilli())
	if !v.KeyID.IsZero() && v.Reason != ReasonRevoked && k.peppers.outdated(&e.digest) {
		k.renew(id, renewal{from: e.digest, to: k.peppers.digestOf(secret)})
	}
	return v, nil
}

// judge reaches the verdict. It compares the secret before it looks at anything
// else: who does not have it must not learn in what state the key is.
func (e *entryView) judge(v *Verdict, all peppers, id ID, secret string, now int64) {
	switch {
	case all.match(&e.digest, secret):
		e.standing(v, id, now)
	case isBase62(secret):
		v.Reason = ReasonUnknown
	default:
		v.Reason = ReasonMalformed
	}
}

// standing says how a key stands whose token was presented.
func (e *entryView) standing(v *Verdict, id ID, now int64) {
	v.KeyID, v.OrganizationID = id, e.organization
	v.ExpiresAt = fromMillis(e.expires)
	v.entry, v.at = e.slot, now
	if e.state&stateServiceAccount != 0 {
		v.ServiceAccountID = e.owner
	} else {
		v.UserID = e.owner
	}
	if e.state&stateReadWrite != 0 {
		v.Scope = ScopeReadWrite
	}
	switch {
	case e.state&stateRevoked != 0:
		v.Reason = ReasonRevoked
	case e.expires != 0 && now >= e.expires:
		v.Reason = ReasonExpired
	}
}

func (k *Keyring) verifyStored(ctx context.Context, id ID, secret string) (v Verdict, err error) {
	ticket := k.index.ticket(id)
	r, err := k.lookUp(ctx, id)
	if err == nil && r != nil && !k.peppers.can(&r.digest) && !r.Revoked() {
		err = unavailable("checking key "+id.String(), errNoPepper)
	}
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, err
	}
	if r == nil || !k.peppers.match(&r.digest, secret) {
		// Not filled in: a stranger who knows an id must not be able to
		// drive keys that are in use out of the index.
		return Verdict{Reason: ReasonUnknown}, nil
	}
	if !r.Revoked() && k.peppers.outdated(&r.digest) {
		k.renew(id, renewal{from: r.digest, to: k.peppers.digestOf(secret)})
	}
	e := k.fillFrom(ticket, r)
	e.standing(&v, id, k.clock().UnixMilli())
	return v, nil
}

// lookUp reads a record from the store. It returns nil when there is none.
func (k *Keyring) lookUp(ctx context.Context, id ID) (r *record, err error) {
	err = k.view(ctx, "lookup", func(tx Reader) (err error) {
		r, err = getRecord(tx, id)
		return err
	})
	if err != nil {
		return nil, unavailable("looking up key "+id.String(), err)
	}
	return r, nil
}

// fillFrom remembers a record, and returns what the index would say of it.
func (k *Keyring) fillFrom(t ticket, r *record) entryView {
	return entryView{
		digest: r.digest, expires: toMillis(r.ExpiresAt),
		organization: r.OrganizationID, owner: r.owner(), state: r.state(), slot: k.index.fill(t, r),
	}
}

// Use records that a key was accepted for a request, as of the time at which it
// was verified. address is the client's IP address as text; it and the user
// agent are kept cleaned and cut, whatever a client sends. Use does no I/O.
func (k *Keyring) Use(v *Verdict, address, userAgent string) {
	switch k.policy.Usage {
	case UsageOff:
		return
	case UsageTime:
		address, userAgent = "", ""
	}
	k.recorder.record(v, address, userAgent, k.prefixes)
}

// view runs a read and tells the observer how it went.
func (k *Keyring) view(ctx context.Context, operation string, fn func(Reader) error) error {
	start := time.Now()
	err := k.store.View(ctx, fn)
	k.heed(err)
	k.observer.StoreOperation(operation, time.Since(start), storeFault(err))
	return err
}

// heed forgets all keys when the store is not the one any more that they came from.
func (k *Keyring) heed(err error) {
	if errors.Is(err, ErrReplaced) && !k.index.closed.Load() {
		k.index.close()
	}
}

// attempts bounds how often an update is run while its outcome stays unknown.
const attempts = 5

// update runs a write until its outcome is known. fn leaves the same records
// when it runs again, so that the run that is known to count settles it.
func (k *Keyring) update(ctx context.Context, operation string, fn func(Tx) error) error {
	return k.updateNoting(ctx, operation, fn, func() {})
}

// updateNoting is update for a fn that has to know what it may have left: lost is called
// after each run whose outcome is unknown.
func (k *Keyring) updateNoting(ctx context.Context, operation string, fn func(Tx) error, lost func()) (err error) {
	start := time.Now()
	unknown := false
	for range attempts {
		if err = k.store.Update(ctx, fn); !errors.Is(err, ErrOutcomeUnknown) {
			break
		}
		unknown = true
		lost()
	}
	k.heed(err)
	if unknown && storeFault(err) != nil && !errors.Is(err, ErrOutcomeUnknown) {
		err = fmt.Errorf("%w: %v", ErrOutcomeUnknown, err) // an earlier attempt may be in force
	}
	k.observer.StoreOperation(operation, time.Since(start), storeFault(err))
	return err
}

var refusals = []error{ErrNotFound, ErrScope, ErrCaller, ErrQuota, ErrNotActive, ErrOwner, ErrOwnLife, ErrOnceReused}

// storeFault keeps refusals, which are answers, out of the count of failures.
func storeFault(err error) error {
	var field *FieldError
	var replayed *Replayed
	if errors.As(err, &field) || errors.As(err, &replayed) {
		return nil
	}
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			return nil
		}
	}
	return err
}

// unavailable says what could not be found out. A damaged record counts as
// that: it must not look like a key that does not exist.
func unavailable(doing string, err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrOutcomeUnknown) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
}

// HoldsToken reports whether text contains what has the shape of a token of this
// Keyring, good or not.
func (k *Keyring) HoldsToken(text string) bool { return containsToken(text, k.prefixes) }
