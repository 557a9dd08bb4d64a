package apikey

import (
	"context"
	"sync"
	"time"
)

// lookup reads from the store what a check needs of a key. It is used for one key
// after another: made anew each time, it would be the most garbage of a check.
type lookup struct {
	id    ID
	found bool
	entry entryView // without a slot
	// revokedAt is when the key was revoked, if it was.
	revokedAt time.Time

	run func(Reader) error // read, bound once
}

var lookups = sync.Pool{New: func() any {
	l := new(lookup)
	l.run = l.read
	return l
}}

// lookUp looks for a key in the store. What it returns is to be ended.
func (k *Keyring) lookUp(ctx context.Context, id ID) (*lookup, error) {
	l := lookups.Get().(*lookup)
	l.id = id
	if err := k.view(ctx, "lookup", l.run); err != nil {
		l.end()
		return nil, unavailable("looking up key "+id.String(), err)
	}
	return l, nil
}

func (l *lookup) end() {
	l.found, l.entry = false, entryView{}
	lookups.Put(l)
}

func (l *lookup) read(tx Reader) error {
	l.found = false
	value, err := tx.Get(TableKeys, l.id[:])
	if err != nil || value == nil {
		return err
	}
	// The texts of r lie in the memory of the store, which may be gone after this.
	var r record
	if err := r.decode(l.id[:], textOf(value)); err != nil {
		return err
	}
	l.found, l.entry, l.revokedAt = true, r.entry(), r.RevokedAt
	return nil
}

// entry returns what the index is to know of a key. It keeps nothing of the record's
// texts alive.
func (r *record) entry() entryView {
	e := entryView{digest: r.digest, expires: toMillis(r.ExpiresAt), state: r.state()}
	e.high, e.low = halves(r.ID)
	texts := r.OrganizationID + r.owner() // one copy, for both
	e.organization, e.owner = texts[:len(r.OrganizationID)], texts[len(r.OrganizationID):]
	return e
}

// state returns the flags that an entry has of a record.
func (r *record) state() (flags uint64) {
	if r.Scope == ScopeReadWrite {
		flags |= stateReadWrite
	}
	if r.ServiceAccountID != "" {
		flags |= stateServiceAccount
	}
	if r.Revoked() {
		flags |= stateRevoked
	}
	return flags
}
