package apikey

import (
	"context"
	"errors"
	"time"
)

// Issued is a new key and its token.
type Issued struct {
	Key Key
	// Token is the plaintext. It is shown once and kept nowhere.
	Token string
}

// Issue makes a key. It refuses with a *FieldError, ErrScope or ErrCaller; with
// any other error no token is known to anybody, though the record of a key may
// have been left behind.
func (k *Keyring) Issue(ctx context.Context, by Principal, what Issue) (Issued, error) {
	made, err := k.IssueMany(ctx, by, []Issue{what})
	if err != nil {
		return Issued{}, err
	}
	return made[0], nil
}

// IssueMany makes keys as Issue does, all of them or none, in one write. That is
// much faster than one by one, up to some thousand at once; past that it keeps
// other changes waiting for too long.
func (k *Keyring) IssueMany(ctx context.Context, by Principal, what []Issue) ([]Issued, error) {
	if by.Scope != ScopeReadWrite {
		return nil, ErrScope
	}
	now := k.clock()
	records, made := make([]*record, len(what)), make([]Issued, len(what))
	for i := range what {
		r, err := k.newRecord(by, what[i], now)
		if err != nil {
			return nil, err
		}
		r.ID = newID(now)
		r.CreatedAt = r.ID.time()
		token, secret := newToken(k.policy.Prefix, r.ID)
		r.Prefix = token[:len(token)-secretDigits-checksumDigits]
		r.digest = digestOf(secret)
		records[i], made[i] = r, Issued{Key: r.Key, Token: token}
	}
	err := k.update(ctx, "issue", func(tx Tx) error {
		if err := checkCaller(tx, by, now); err != nil {
			return err
		}
		fresh := uint64(0)
		for _, r := range records {
			there, err := tx.Get(TableKeys, r.ID[:])
			if err != nil {
				return err
			}
			if there != nil { // by an earlier run, and it may have been revoked since
				continue
			}
			fresh++
			if err := tx.Put(TableOrganizations, organizationKey(r.OrganizationID, r.ID), []byte{1}); err != nil {
				return err
			}
			if err := tx.Put(TableKeys, r.ID[:], r.encode()); err != nil {
				return err
			}
		}
		return count(tx, countIssued, fresh)
	})
	if err != nil {
		return nil, refusalOr("issuing a key", err)
	}
	for i := range made {
		k.observer.Changed(ctx, Change{Kind: ChangeIssued, Key: made[i].Key, By: by})
	}
	return made, nil
}

// newRecord checks what a key is to be, and names its owner.
func (k *Keyring) newRecord(by Principal, what Issue, now time.Time) (*record, error) {
	r := &record{prefix: k.policy.Prefix, Key: Key{
		OrganizationID: by.OrganizationID, Name: what.Name, Description: what.Description, Scope: what.Scope,
		ExpiresAt: fromMillis(toMillis(what.ExpiresAt)), CreatedBy: by.ID(), MintedBy: by.KeyID,
	}}
	switch {
	case what.ServiceAccountID != "" && what.UserID != "":
		return nil, &FieldError{"userId", "cannot be given together with serviceAccountId: a key has one owner"}
	case what.ServiceAccountID != "":
		r.ServiceAccountID = what.ServiceAccountID
	case by.Operator && what.UserID == "":
		return nil, &FieldError{"userId", "is required, or serviceAccountId: a key has an owner"}
	case by.Operator:
		r.UserID = what.UserID
	case what.UserID != "":
		return nil, &FieldError{"userId", "cannot be chosen: the key belongs to who asks for it"}
	default:
		r.UserID, r.ServiceAccountID = by.UserID, by.ServiceAccountID
	}
	if err := checkName(r.Name); err != nil {
		return nil, err
	}
	if err := checkText("description", r.Description, MaxDescriptionLength); err != nil {
		return nil, err
	}
	for _, f := range []struct{ field, text string }{{"name", r.Name}, {"description", r.Description}} {
		if containsToken(f.text, k.prefixes) {
			return nil, &FieldError{f.field, "holds a token; revoke that key if others have seen it"}
		}
	}
	if err := checkIdentity("organization", r.OrganizationID); err != nil {
		return nil, err
	}
	field := "userId"
	if r.ServiceAccountID != "" {
		field = "serviceAccountId"
	}
	if err := checkIdentity(field, r.owner()); err != nil {
		return nil, err
	}
	// Asked of the time as it was given: a record cannot tell 1970 from never.
	if end := what.ExpiresAt; !end.IsZero() && !now.Before(end.Truncate(time.Millisecond)) {
		return nil, &FieldError{"expiresAt", "must be in the future"}
	}
	return r, nil
}

// checkCaller looks at the caller's own key inside the write: it may have been
// revoked since the request was let in.
func checkCaller(tx Reader, by Principal, now time.Time) error {
	if by.KeyID.IsZero() {
		return nil
	}
	r, err := getRecord(tx, by.KeyID)
	switch {
	case err != nil:
		return err
	case r == nil || r.Revoked() || r.Expired(now) || r.OrganizationID != by.OrganizationID:
		return ErrCaller
	case r.Scope != ScopeReadWrite:
		return ErrScope
	}
	return nil
}

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

// ListQuery says which part of a list of keys is wanted.
type ListQuery struct {
	// After is the last key of the page before; zero for the first page.
	After ID
	// Limit is how many keys a page has at the most, from 1 to 1,000; what
	// lies outside is taken for the nearer of them.
	Limit int
}

const maxPage = 1000

// Page is a part of a list of keys, newest first.
type Page struct {
	Keys []Key
	// Next is the After of the next page; zero on the last.
	Next ID
}

// List returns the keys of the caller's organization.
func (k *Keyring) List(ctx context.Context, by Principal, q ListQuery) (Page, error) {
	if by.Scope != ScopeReadWrite {
		return Page{}, ErrScope
	}
	limit := min(max(q.Limit, 1), maxPage)
	var ids []ID
	err := k.view(ctx, "list", func(tx Reader) (err error) {
		ids, err = scanOrganization(tx, by.OrganizationID, q.After, limit+1)
		return err
	})
	if err != nil {
		return Page{}, refusalOr("listing keys", err)
	}
	var page Page
	if len(ids) > limit {
		ids = ids[:limit]
		page.Next = ids[limit-1]
	}
	pending := make([][]pendingUse, len(ids)) // as in Get
	for i, id := range ids {
		pending[i] = k.recorder.pending(id)
	}
	err = k.view(ctx, "list", func(tx Reader) error {
		page.Keys = make([]Key, 0, len(ids))
		for i, id := range ids {
			r, err := getOwn(tx, by, id)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if err := addUsage(tx, &r.Key, pending[i]); err != nil {
				return err
			}
			page.Keys = append(page.Keys, r.Key)
		}
		return nil
	})
	if err != nil {
		return Page{}, refusalOr("listing keys", err)
	}
	return page, nil
}

// Revoke ends a key for good. When it returns without an error, the key is
// refused to every request that starts from then on. Revoking a revoked key
// changes nothing and returns its record.
func (k *Keyring) Revoke(ctx context.Context, by Principal, id ID) (Key, error) {
	if by.Scope != ScopeReadWrite {
		return Key{}, ErrScope
	}
	now := fromMillis(k.clock().UnixMilli())
	pending := k.recorder.pending(id)
	var key Key
	changed := false // by any run: the last may find what the one before left
	err := k.update(ctx, "revoke", func(tx Tx) error {
		if !changed || id != by.KeyID { // else an earlier run ended the caller's own key
			if err := checkCaller(tx, by, now); err != nil {
				return err
			}
		}
		r, err := getOwn(tx, by, id)
		if err != nil {
			return err
		}
		if !r.Revoked() {
			changed = true
			r.RevokedAt = now
			if err := count(tx, countRevoked, 1); err != nil {
				return err
			}
			if err := tx.Put(TableKeys, id[:], r.encode()); err != nil {
				return err
			}
		}
		key = r.Key
		if err := addUsage(tx, &key, pending); !errors.Is(err, errDamaged) {
			return err
		}
		return nil // a key must not live on because its usage is damaged
	})
	// Also when it failed: the key may be revoked all the same. Not when it was
	// refused: nobody may drive another's key out of the index.
	if err == nil || changed {
		k.index.change(id)
	}
	if err != nil {
		return Key{}, refusalOr("revoking key "+id.String(), err)
	}
	if changed {
		k.observer.Changed(ctx, Change{Kind: ChangeRevoked, Key: key, By: by})
	}
	return key, nil
}

// refusalOr passes refusals on as they are and says of anything else what was
// being done.
func refusalOr(doing string, err error) error {
	if storeFault(err) == nil {
		return err
	}
	return unavailable(doing, err)
}
