package apikey

import (
	"context"
	"time"
)

// ChangeKind names what happened to a key.
type ChangeKind uint8

// The kinds of change.
const (
	ChangeIssued ChangeKind = iota
	ChangeUpdated
	ChangeRotated
	ChangeRevoked
	ChangeImported

	changeCount
)

var changeNames = [changeCount]string{"issued", "updated", "rotated", "revoked", "imported"}

// String returns the kind as metrics and logs name it.
func (c ChangeKind) String() string { return changeNames[c] }

// ChangeKinds returns every kind, in order.
func ChangeKinds() []ChangeKind {
	all := make([]ChangeKind, changeCount)
	for i := range all {
		all[i] = ChangeKind(i)
	}
	return all
}

// Change tells of one durable change of a key.
type Change struct {
	Kind ChangeKind
	// Key is the record after the change.
	Key Key
	// By is who asked for it.
	By Principal
	// Successor is the key that a rotated one was replaced by.
	Successor ID
	// FoundAt says where the token of a key that was revoked as leaked had
	// been found, as it was reported.
	FoundAt string
}

// Observer is told what the Keyring does. Its methods are called on the
// goroutine that did the work, after it is in force; they must be quick and
// safe for concurrent use.
type Observer interface {
	// Changed tells of a durable change. ctx is that of the caller.
	Changed(ctx context.Context, c Change)
	// StoreOperation tells of a finished call of the store: "lookup", "get",
	// "list", "issue", "update", "rotate", "revoke", "import", "export", "compare",
	// "flush", "renew", "remove" or "stats".
	StoreOperation(operation string, took time.Duration, err error)
	// UsageFlushed tells that the usage of a number of keys was written, or
	// why it could not be; it is then kept for the next flush.
	UsageFlushed(keys int, took time.Duration, err error)
	// UsageDropped tells that uses were not recorded because the store could
	// not take them for so long that the memory for them was full.
	UsageDropped(uses int)
	// ClientChanged tells that a key was used from elsewhere, after that is in
	// the store: at most once an hour of a key, and of a bounded number of keys.
	// It may take its time.
	ClientChanged(ctx context.Context, c ClientChange)
	// ClientChangesUntold tells how many such changes were not told, because
	// there were too many.
	ClientChangesUntold(changes int)
}

// unobserved is the Observer of a Keyring that has none.
type unobserved struct{}

func (unobserved) Changed(context.Context, Change)             {}
func (unobserved) StoreOperation(string, time.Duration, error) {}
func (unobserved) UsageFlushed(int, time.Duration, error)      {}
func (unobserved) UsageDropped(int)                            {}
func (unobserved) ClientChanged(context.Context, ClientChange) {}
func (unobserved) ClientChangesUntold(int)                     {}
