package apikey

import (
	"context"
	"errors"
	"math"
	"time"
)

var (
	// ErrNotActive says that the key is revoked, expired or was rotated, so
	// that it cannot be changed in this way.
	ErrNotActive = errors.New("the key is revoked, expired or was rotated")
	// ErrOwner says that only the owner of the key may do this.
	ErrOwner = errors.New("the key belongs to another user")
	// ErrOwnLife says that a key was used to lengthen its own life.
	ErrOwnLife = errors.New("a key cannot lengthen its own life")
)

// Update says what of a key is to change; nil leaves it.
type Update struct {
	Name        *string
	Description *string
	Scope       *Scope
	// ExpiresAt points to zero for a key without an end.
	ExpiresAt *time.Time
}

// Update changes a key. When it returns without an error, the change is in force
// for every request that starts from then on. A revoked key cannot be changed,
// nor when a rotated one ends.
func (k *Keyring) Update(ctx context.Context, by Principal, id ID, what Update) (Key, error) {
	if by.Scope != ScopeReadWrite {
		return Key{}, ErrScope
	}
	now := k.clock()
	var end time.Time
	if what.ExpiresAt != nil {
		var err error
		if end, err = k.policy.endOfLife(*what.ExpiresAt, now); err != nil {
			return Key{}, err
		}
		if what.ExpiresAt.IsZero() && k.policy.MaxTTL != 0 {
			return Key{}, &FieldError{"expiresAt", "cannot be cleared: keys live for " + days(k.policy.MaxTTL) + " at most"}
		} else if what.ExpiresAt.IsZero() {
			end = time.Time{} // the default is for new keys
		}
	}
	pending := k.recorder.pending(id)
	var key Key
	var written record
	changed := false
	err := k.update(ctx, "update", func(tx Tx) error {
		r, err := getOwn(tx, by, id)
		if err == nil && changed && *r == written {
			_, err = addReadableUsage(tx, &key, pending)
			return err // by an earlier run, which may have taken the caller's right away
		}
		if refused := checkCaller(tx, by, now); refused != nil {
			return refused
		}
		if err != nil {
			return err
		}
		if r.Revoked() || r.Rotated() && what.ExpiresAt != nil {
			return ErrNotActive
		}
		was := *r
		if err := r.apply(by, what, end); err != nil {
			return err
		}
		if err := k.checkTexts(r); err != nil {
			return err
		}
		if was.Expired(now) && !r.Expired(now) {
			if err := k.checkQuota(tx, r.OrganizationID, 1, now); err != nil {
				return err
			}
		}
		if was != *r {
			changed, written = true, *r
			if err := tx.Put(TableKeys, id[:], r.encode()); err != nil {
				return err
			}
		}
		key = r.Key
		_, err = addReadableUsage(tx, &key, pending)
		return err
	})
	if err == nil || changed {
		k.index.change(id) // also when it failed: the change may be in force all the same
	}
	if err != nil {
		return Key{}, refusalOr("changing key "+id.String(), err)
	}
	if changed {
		k.observer.Changed(ctx, Change{Kind: ChangeUpdated, Key: key, By: by})
	}
	return key, nil
}

func (r *record) apply(by Principal, what Update, end time.Time) error {
	if what.Name != nil {
		r.Name = *what.Name
	}
	if what.Description != nil {
		r.Description = *what.Description
	}
	if what.Scope != nil {
		r.Scope = *what.Scope
	}
	if what.ExpiresAt != nil {
		if r.ID == by.KeyID && !r.ExpiresAt.IsZero() && (end.IsZero() || end.After(r.ExpiresAt)) {
			return ErrOwnLife
		}
		r.ExpiresAt = end
	}
	return nil
}

// Rotate says how a key is replaced.
type Rotate struct {
	// Grace is how much longer the old token is accepted.
	Grace time.Duration
	// ExpiresAt is when the new key ends; zero gives it the length of life
	// that the old one had.
	ExpiresAt time.Time
	// Once makes a repetition of the call a refusal.
	Once *Once
}

// Rotate makes a new key with the name, owner and scope of another, which ends
// with the grace. A user's key is rotated by that user or the operator, one of a
// service account by anybody with the right to make keys. A key that is revoked,
// expired or was rotated before is ErrNotActive.
func (k *Keyring) Rotate(ctx context.Context, by Principal, id ID, what Rotate) (Issued, error) {
	if by.Scope != ScopeReadWrite {
		return Issued{}, ErrScope
	}
	now := k.clock()
	next := new(record)
	made := k.mint(next, now)
	var old Key
	written := false
	err := k.update(ctx, "rotate", func(tx Tx) error {
		r, err := getOwn(tx, by, id)
		if err == nil && r.ReplacedBy == next.ID {
			return nil // by an earlier run, which may have ended the caller's own key
		}
		if refused := checkCaller(tx, by, now); refused != nil {
			return refused
		}
		if err != nil {
			return err
		}
		if err := what.Once.claim(tx, by, next.ID, now); err != nil {
			return err
		}
		switch {
		case !r.Active(now) || r.Rotated():
			return ErrNotActive
		case r.UserID != "" && !by.Operator && by.UserID != r.UserID:
			return ErrOwner
		}
		if err := k.succeed(next, r, by, what.ExpiresAt, now); err != nil {
			return err
		}
		written = true
		if err := k.replace(tx, r, next, now, what.Grace); err != nil {
			return err
		}
		old = r.Key
		return nil
	})
	if err == nil || written {
		k.index.change(id)
	}
	if err != nil {
		return Issued{}, refusalOr("rotating key "+id.String(), err)
	}
	made.Key = next.Key
	k.observer.Changed(ctx, Change{Kind: ChangeRotated, Key: old, By: by, Successor: made.Key.ID})
	return made, nil
}

// succeed gives a new record what it has of the one before it.
func (k *Keyring) succeed(next, old *record, by Principal, end, now time.Time) (err error) {
	if end.IsZero() && !old.ExpiresAt.IsZero() {
		if life := old.ExpiresAt.Sub(old.CreatedAt); life < math.MaxInt64 {
			end = now.Add(life)
		} else {
			end = old.ExpiresAt // some centuries from now
		}
		if longest := k.policy.MaxTTL; longest != 0 {
			end = earlier(end, now.Add(longest))
		}
	}
	if next.ExpiresAt, err = k.policy.endOfLife(end, now); err != nil {
		return err
	}
	next.OrganizationID, next.UserID, next.ServiceAccountID = old.OrganizationID, old.UserID, old.ServiceAccountID
	next.Name, next.Description, next.Scope = old.Name, old.Description, old.Scope
	next.CreatedBy, next.MintedBy = by.ID(), by.KeyID
	return nil
}

// replace writes both records.
func (k *Keyring) replace(tx Tx, old, next *record, now time.Time, grace time.Duration) error {
	end := fromMillis(now.Add(max(grace, 0)).UnixMilli())
	if longest := k.policy.MaxTTL; longest != 0 {
		end = earlier(end, fromMillis(now.Add(longest).UnixMilli()))
	}
	if !old.ExpiresAt.IsZero() {
		end = earlier(end, old.ExpiresAt)
	}
	old.ExpiresAt, old.ReplacedBy = end, next.ID
	if err := tx.Put(TableKeys, old.ID[:], old.encode()); err != nil {
		return err
	}
	return k.putNew(tx, []*record{next}, now, 1)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
