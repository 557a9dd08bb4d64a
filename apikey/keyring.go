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

// Policy is what one configuration demands of keys. Several policies can be in
// force over the same keys, as while a server reloads.
type Policy struct {
	// Prefix starts the tokens of new keys. Default: DefaultPrefix.
	Prefix string
	// RetiredPrefixes start tokens that were made under an earlier
	// configuration and are still accepted.
	RetiredPrefixes []string
}

// Settings are what a Keyring is opened with. The zero value of each field
// stands for its default.
type Settings struct {
	// Capacity is how many keys the index holds; the store may hold any
	// number. Rounded up to a power of two. Default: 262,144, which takes up
	// to 36 MiB and the texts of as many ids.
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
	observer Observer
}

// core is what Keyrings of one store share, whatever their policies.
type core struct {
	store    Store
	index    *index
	recorder *recorder
	clock    Clock
	census   atomic.Pointer[census]

	flushEvery time.Duration
	flushing   sync.Mutex // one flush at a time
	stop       context.CancelFunc
	stopped    sync.WaitGroup
}

// Open returns a Keyring over a store, which it owns from then on. Close it to
// bring the last usage to the store.
func Open(store Store, settings Settings, policy Policy, observer Observer) (*Keyring, error) {
	if settings.Capacity == 0 {
		settings.Capacity = 1 << 18
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
		store: store, index: index, clock: settings.Clock, flushEvery: settings.FlushInterval,
		recorder: &recorder{index: index, resolution: settings.UsageResolution, spill: make(map[ID]*pendingUse)},
	}
	k, err := (&Keyring{core: shared}).With(policy, observer)
	if err != nil {
		return nil, err
	}
	k.start()
	return k, nil
}

// With returns a Keyring of the same keys under another policy, which reports
// to another observer. Only the one that Open returned needs to be closed.
func (k *Keyring) With(policy Policy, observer Observer) (*Keyring, error) {
	if policy.Prefix == "" {
		policy.Prefix = DefaultPrefix
	}
	if observer == nil {
		observer = unobserved{}
	}
	with := &Keyring{core: k.core, policy: policy, observer: observer}
	for _, prefix := range append([]string{policy.Prefix}, policy.RetiredPrefixes...) {
		if err := CheckPrefix(prefix); err != nil {
			return nil, err
		}
		with.prefixes = append(with.prefixes, prefix+"_")
	}
	return with, nil
}

// Now returns the time by which the Keyring judges expiry.
func (k *Keyring) Now() time.Time { return k.clock() }

// Verify says whether a token is that of a good key. A wrong checksum costs no
// lookup, an unknown key one, and neither a write. The error, if any, wraps
// ErrUnavailable: it could not be found out, and the verdict says
// ReasonUnavailable.
func (k *Keyring) Verify(ctx context.Context, token string) (v Verdict, err error) {
	id, secret, reason := parseToken(token, k.prefixes)
	if reason != ReasonNone {
		v.Reason = reason
		return v, nil
	}
	if e, ok := k.index.find(id); ok {
		e.judge(&v, id, secret, k.clock().UnixMilli())
		return v, nil
	}
	return k.verifyStored(ctx, id, secret)
}

// judge reaches the verdict. It compares the secret before it looks at anything
// else: who does not have it must not learn in what state the key is.
func (e *entryView) judge(v *Verdict, id ID, secret string, now int64) {
	if !e.digest.matches(secret) {
		v.Reason = ReasonUnknown
		return
	}
	v.KeyID, v.KeyName, v.OrganizationID = id, e.name, e.organization
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
	var r *record
	err = k.view(ctx, "lookup", func(tx Reader) error {
		value, err := tx.Get(TableKeys, id[:])
		if err != nil || value == nil {
			return err
		}
		r, err = decodeRecord(id, value)
		return err
	})
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up key "+id.String(), err)
	}
	if r == nil || !r.digest.matches(secret) {
		// Not filled in: a stranger who knows an id must not be able to
		// drive keys that are in use out of the index.
		return Verdict{Reason: ReasonUnknown}, nil
	}
	e := entryView{
		digest: r.digest, expires: toMillis(r.ExpiresAt), name: id.String(),
		organization: r.OrganizationID, owner: r.owner(), state: r.state(), slot: k.index.fill(ticket, r),
	}
	e.judge(&v, id, secret, k.clock().UnixMilli())
	return v, nil
}

// Use records that a key was accepted for a request, as of the time at which it
// was verified. address is the client's IP address as text; it and the user
// agent are kept cleaned and cut, whatever a client sends. Use does no I/O.
func (k *Keyring) Use(v *Verdict, address, userAgent string) {
	k.recorder.record(v, address, userAgent)
}

// view runs a read and tells the observer how it went.
func (k *Keyring) view(ctx context.Context, operation string, fn func(Reader) error) error {
	start := time.Now()
	err := k.store.View(ctx, fn)
	k.observer.StoreOperation(operation, time.Since(start), storeFault(err))
	return err
}

// attempts bounds how often an update is run while its outcome stays unknown.
const attempts = 5

// update runs a write until its outcome is known. fn leaves the same records
// when it runs again, so that the run that is known to count settles it.
func (k *Keyring) update(ctx context.Context, operation string, fn func(Tx) error) (err error) {
	start := time.Now()
	unknown := false
	for range attempts {
		if err = k.store.Update(ctx, fn); !errors.Is(err, ErrOutcomeUnknown) {
			break
		}
		unknown = true
	}
	if unknown && storeFault(err) != nil && !errors.Is(err, ErrOutcomeUnknown) {
		err = fmt.Errorf("%w: %v", ErrOutcomeUnknown, err) // an earlier attempt may be in force
	}
	k.observer.StoreOperation(operation, time.Since(start), storeFault(err))
	return err
}

// storeFault keeps refusals, which are answers, out of the count of failures.
func storeFault(err error) error {
	var field *FieldError
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrScope) || errors.Is(err, ErrCaller) || errors.As(err, &field) {
		return nil
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
