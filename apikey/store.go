package apikey

import (
	"context"
	"errors"
	"io"
)

// Table names one ordered set of records in a [Store]. Drivers give each table
// a place of its own; what stands in it is the Keyring's business alone.
type Table uint8

// The tables of a store. The text form of a table is part of the stored
// format: a number may move, a name never does.
const (
	// TableKeys holds a record for each key, by key id.
	TableKeys Table = iota
	// TableOrganizations lists the key ids of each organization.
	TableOrganizations
	// TableUsage holds the usage of each key that was ever used, in blocks of
	// keys whose ids are neighbours, by the first id that a block may hold.
	TableUsage
	// TableCounts holds the number of keys in each state.
	TableCounts
	// TableCalls remembers calls that made a key, for a day, by their
	// idempotency key.
	TableCalls
	// TableForeign holds the ids of keys whose token was made elsewhere, by
	// the digest of the token.
	TableForeign

	tableCount
)

var tableNames = [tableCount]string{"keys", "organizations", "usage", "counts", "calls", "foreign"}

// String returns the name of the table as drivers store it.
func (t Table) String() string {
	if t < tableCount {
		return tableNames[t]
	}
	return "unknown"
}

// Tables returns every table, in the order of their numbers.
func Tables() []Table {
	all := make([]Table, tableCount)
	for i := range all {
		all[i] = Table(i)
	}
	return all
}

var (
	// ErrUnavailable says that the store could not be asked: it is closed,
	// damaged, full, or out of reach. Nothing was written. The request that
	// needed it is answered 503, never 401.
	ErrUnavailable = errors.New("key store unavailable")

	// ErrReplaced says, beside ErrUnavailable, that somebody else has written to
	// the store, or put another in its place, behind the driver's back. What the
	// Keyring knows of keys may be wrong then: it lets nobody in by it any more.
	ErrReplaced = errors.New("key store written or replaced by somebody else")

	// ErrOutcomeUnknown says that an update was handed to the store and its
	// answer was lost: it may be in force or not. Running the same update
	// again tells, because every update of the Keyring leaves the same
	// records when it runs a second time.
	ErrOutcomeUnknown = errors.New("outcome of the write unknown")
)

// Store is what the Keyring needs of a storage driver: ordered tables of byte
// strings, and transactions over them. It knows nothing of keys. A Store is
// safe for concurrent use.
//
// Package storagetest holds this contract as a test suite; a driver is one
// that passes it.
type Store interface {
	// View runs fn over one consistent state of the store that includes
	// every update whose Update has returned. As in Update, a driver may run fn
	// more than once, and only the last run counts. It returns the error of fn as
	// it is, the error of ctx when that has ended before, or an error that
	// wraps ErrUnavailable. fn must not call the Store.
	View(ctx context.Context, fn func(Reader) error) error

	// Update runs fn and makes its writes durable together before it
	// returns. Updates are serializable. Nothing that fn wrote counts when
	// it returns an error; Update then returns that error as it is.
	//
	// fn must be pure but for its variables: a driver may run it more than
	// once, and only the last run counts. fn may run on another goroutine,
	// never on two at once. It must not call the Store, nor wait for somebody
	// who does.
	//
	// An error that wraps ErrUnavailable means that nothing was written; one
	// that wraps ErrOutcomeUnknown, that it cannot be told. When ctx ends
	// before fn was taken up, Update returns the error of ctx.
	Update(ctx context.Context, fn func(Tx) error) error

	// Close waits for transactions that run and releases the store. Every
	// later call fails with ErrUnavailable.
	Close() error
}

// Reader reads within one transaction. The byte strings that it hands out
// belong to the driver: they must not be changed, nor kept after the
// transaction's function has returned.
type Reader interface {
	// Get returns the value of key, or nil when there is none; an empty value
	// is a slice that is not nil. Within an Update it sees what fn wrote
	// before.
	Get(t Table, key []byte) ([]byte, error)

	// Scan calls yield for the records whose key is at least from and less
	// than to, in ascending order of the key bytes, or in descending order
	// with Reverse, until yield returns false. An empty to means the end of
	// the table. Within an Update it may miss what the same fn wrote before.
	Scan(t Table, r Range, yield func(key, value []byte) bool) error
}

// Range says which records a scan visits, and in which order.
type Range struct {
	From, To []byte
	Reverse  bool
	// Limit is how many records the caller means to read; zero means that it
	// does not know. It is advice, for drivers that fetch records in pages.
	Limit int
}

// Tx reads and writes within one Update. Keys are 1 to 512 bytes, values up to
// 64 KiB; both are copied by the driver before the call returns.
type Tx interface {
	Reader
	Put(t Table, key, value []byte) error
	Delete(t Table, key []byte) error
}

// Watcher is implemented by a Store that other processes write too. A Store
// without it is written by this process alone.
type Watcher interface {
	// Watch calls changed with the table and key of each record that
	// anybody has written or deleted. It calls synced once, when every
	// later change will be reported. It returns when ctx ends, or with an
	// error when it has lost track: changes may then have been missed.
	//
	// changed is called on one goroutine, in the order of the changes, and
	// may call View. The key that it is given is good during the call only.
	// When the store is closed, the error wraps ErrUnavailable.
	Watch(ctx context.Context, synced func(), changed func(t Table, key []byte)) error
}

// Snapshotter is implemented by a Store that can copy itself while it is in use.
type Snapshotter interface {
	// Snapshot writes one consistent state of the store, which includes every
	// update that has returned, to what start returns. start is called once,
	// with the number of bytes to come. Updates go on meanwhile; a writer that
	// is so slow that they would have to wait for it is given up.
	Snapshot(ctx context.Context, start func(size int64) (io.Writer, error)) error
}
