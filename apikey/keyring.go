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
	if err == nil {
		return nil
	}
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
