package apikey

import (
	"context"
	"errors"
	"time"
)

// Get returns one key with its usage. A read key sees itself only.
func (k *Keyring) Get(ctx context.Context, by Principal, id ID) (Key, error) {
	if by.Scope != ScopeReadWrite && id != by.KeyID {
		return Key{}, ErrScope
	}
	// Collected before the store is read: a flush in between is then seen
	// twice rather than never.
	pending := k.recorder.pending(id)
	var key Key
	err := k.view(ctx, "get", func(tx Reader) error {
		r, err := getOwn(tx, by, id)
		if err != nil {
			return err
		}
		key = r.Key
		return addUsage(tx, &key, pending)
	})
	if err != nil {
		return Key{}, refusalOr("reading key "+id.String(), err)
	}
	return key, nil
}

// Inspect says what key a token belongs to, if it is a good one of the caller's
// organization; ErrNotFound is said of all others. It does not count as a use.
func (k *Keyring) Inspect(ctx context.Context, by Principal, token string) (Key, error) {
	v, err := k.Verify(ctx, token)
	switch {
	case err != nil:
		return Key{}, err
	case !v.Allowed() || v.OrganizationID != by.OrganizationID && !by.anywhere():
		return Key{}, ErrNotFound
	}
	return k.Get(ctx, by, v.KeyID)
}

// Status is how a key stands.
type Status uint8

// The states of a key.
const (
	StatusAny Status = iota
	StatusActive
	StatusExpired
	StatusRevoked
)

// ParseStatus reads a state as the API writes it.
func ParseStatus(text string) (Status, bool) {
	switch text {
	case "active":
		return StatusActive, true
	case "expired":
		return StatusExpired, true
	case "revoked":
		return StatusRevoked, true
	}
	return StatusAny, false
}

// Status returns how the key stands at now.
func (k *Key) Status(now time.Time) Status {
	switch {
	case k.Revoked():
		return StatusRevoked
	case k.Expired(now):
		return StatusExpired
	}
	return StatusActive
}

// Filter chooses keys: those that meet all conditions that are set.
type Filter struct {
	Status           Status
	Scope            *Scope
	UserID           string
	ServiceAccountID string
	MintedBy         ID
	// UnusedSince chooses keys that were not used from then on, or never.
	UnusedSince time.Time
}

func (f *Filter) admits(key *Key, now time.Time) bool {
	return (f.Status == StatusAny || key.Status(now) == f.Status) &&
		(f.Scope == nil || key.Scope == *f.Scope) &&
		(f.UserID == "" || key.UserID == f.UserID) &&
		(f.ServiceAccountID == "" || key.ServiceAccountID == f.ServiceAccountID) &&
		(f.MintedBy.IsZero() || key.MintedBy == f.MintedBy) &&
		(f.UnusedSince.IsZero() || key.Usage.LastUsedAt.Before(f.UnusedSince))
}

// ListQuery says which part of a list of keys is wanted.
type ListQuery struct {
	Filter
	// After is where the page before ended; zero for the first page.
	After ID
	// Limit is how many keys a page has at the most, from 1 to 1,000; what
	// lies outside is taken for the nearer of them.
	Limit int
}

// maxPage bounds the keys that a page looks at, so that a filter that nothing
// passes does not read the whole store.
const maxPage = 1000

// Page is a part of a list of keys, newest first.
type Page struct {
	// Keys may be fewer than the limit, or none, though there is a Next.
	Keys []Key
	// Next is the After of the next page; zero on the last.
	Next ID
}

// List returns the keys of the caller's organization. Who has none, as an operator
// may, gets ErrNotFound: an empty list would say that there are no keys.
func (k *Keyring) List(ctx context.Context, by Principal, q ListQuery) (Page, error) {
	return k.list(ctx, by, q, func(err error) error { return err })
}

// list is List. What damaged returns of a record that cannot be read ends it; nil
// leaves that key out.
func (k *Keyring) list(ctx context.Context, by Principal, q ListQuery, damaged func(error) error) (Page, error) {
	if by.Scope != ScopeReadWrite {
		return Page{}, ErrScope
	}
	if by.OrganizationID == "" {
		return Page{}, ErrNotFound
	}
	now := k.clock()
	limit := min(max(q.Limit, 1), maxPage)
	look := limit
	if q.Filter != (Filter{}) {
		look = maxPage
	}
	var ids []ID
	err := k.view(ctx, "list", func(tx Reader) error {
		ids = ids[:0]
		return scanOrganization(tx, by.OrganizationID, q.After, look+1, func(id ID) bool {
			ids = append(ids, id)
			return len(ids) <= look
		})
	})
	if err != nil {
		return Page{}, refusalOr("listing keys", err)
	}
	looked := ids[:min(len(ids), look)]
	pending := make([][]pendingUse, len(looked)) // as in Get
	for i, id := range looked {
		pending[i] = k.recorder.pending(id)
	}
	var page Page
	err = k.view(ctx, "list", func(tx Reader) error {
		page = Page{}
		for i, id := range looked {
			r, err := getOwn(tx, by, id)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if errors.Is(err, errDamaged) {
				if err = damaged(err); err == nil {
					continue
				}
			}
			if err != nil {
				return err
			}
			known, err := addReadableUsage(tx, &r.Key, pending[i])
			if err != nil {
				return err
			}
			// Nobody knows since when a key was not used whose usage is damaged.
			if q.admits(&r.Key, now) && (known || q.UnusedSince.IsZero()) {
				page.Keys = append(page.Keys, r.Key)
			}
			if len(page.Keys) == limit {
				looked = looked[:i+1]
				break
			}
		}
		if len(looked) < len(ids) {
			page.Next = looked[len(looked)-1]
		}
		return nil
	})
	if err != nil {
		return Page{}, refusalOr("listing keys", err)
	}
	return page, nil
}

// EndOf returns when a key was revoked or has expired, or zero while it is good.
// A key whose record is gone has ended long ago.
func (k *Keyring) EndOf(ctx context.Context, id ID) (time.Time, error) {
	now := k.clock()
	var e entryView
	if k.index.find(id, &e) {
		var v Verdict
		switch e.standing(&v, id, now.UnixMilli()); v.Reason {
		case ReasonNone:
			return time.Time{}, nil
		case ReasonExpired: // known without the store, which may be gone
			return v.ExpiresAt, nil
		}
	}
	l, err := k.lookUp(ctx, id)
	if err != nil {
		return time.Time{}, err
	}
	defer l.end()
	if !l.found {
		return time.Unix(0, 0), nil
	}
	var v Verdict
	switch l.entry.standing(&v, id, now.UnixMilli()); v.Reason {
	case ReasonRevoked:
		return l.revokedAt, nil
	case ReasonExpired:
		return v.ExpiresAt, nil
	}
	return time.Time{}, nil
}
