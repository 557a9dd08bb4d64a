package apikey

import (
	"context"
	"errors"
	"time"
)

// Revoke ends a key for good. When it returns without an error, the key is
// refused to every request that starts from then on. Revoking a revoked key
// changes nothing and returns its record.
func (k *Keyring) Revoke(ctx context.Context, by Principal, id ID) (Key, error) {
	return k.revoke(ctx, by, id, cause{})
}

// Leak reports a token that is public.
type Leak struct {
	Token string
	// FoundAt says where it was found, for the audit log.
	FoundAt string
	// Address and RequestID tell from where the report came, as those of a
	// Principal.
	Address, RequestID string
}

// RevokeLeaked ends the key of a token that somebody reported to be public. It
// acts for the operator. What is not a token of a key here is ErrNotFound; a key
// that is revoked already costs no write.
func (k *Keyring) RevokeLeaked(ctx context.Context, leak Leak) (Key, error) {
	v, err := k.Verify(ctx, leak.Token)
	if err != nil {
		return Key{}, err
	}
	if v.KeyID.IsZero() {
		return Key{}, ErrNotFound
	}
	by := Operator("")
	by.Address, by.RequestID = leak.Address, leak.RequestID
	key, err := k.revoke(ctx, by, v.KeyID, cause{CauseLeaked, leak.FoundAt})
	if err != nil || hasAnyPrefix(leak.Token, k.prefixes) {
		return key, err
	}
	// The token of another maker may have been imported by several hashes. The
	// other keys would be good again when the record of this one is gone.
	others, err := k.foreignIDs(ctx, leak.Token)
	for i := 0; i < len(others) && err == nil; i++ {
		_, err = k.revoke(ctx, by, others[i], cause{CauseLeaked, leak.FoundAt})
	}
	return key, err
}

// CauseLeaked is the RevokedFor of a key whose token became public.
const CauseLeaked = "leaked"

// cause is why a key is revoked. Where its token was found is not kept.
type cause struct{ reason, foundAt string }

func (k *Keyring) revoke(ctx context.Context, by Principal, id ID, why cause) (Key, error) {
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
		done, err := r.revokeIn(tx, now, why.reason)
		if err != nil {
			return err
		}
		changed = changed || done
		key = r.Key
		_, err = addReadableUsage(tx, &key, pending)
		return err
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
		k.observer.Changed(ctx, Change{Kind: ChangeRevoked, Key: key, By: by, FoundAt: why.foundAt})
	}
	return key, nil
}

// revokeIn revokes a key, unless it is.
func (r *record) revokeIn(tx Tx, now time.Time, cause string) (done bool, err error) {
	if r.Revoked() {
		return false, nil
	}
	if err := r.countDigest(tx, -1); err != nil {
		return false, err
	}
	r.RevokedAt, r.RevokedFor = now, cause
	return true, errors.Join(
		r.countDigest(tx, 1),
		count(tx, countRevoked, 1),
		count(tx, countLive(r.OrganizationID), -1),
		tx.Put(TableKeys, r.ID[:], r.encode()),
	)
}

// revokeSlice is how many keys are looked for at a time.
const revokeSlice = 500

// maxPasses bounds how often keys are looked for again that those which are being
// revoked have made meanwhile.
const maxPasses = 10

// RevokeWhere ends the active keys of the caller's organization that a filter
// lets through, whatever its Status, and returns how many it ended. After an error it
// may have ended some, and can be called again; keys whose records are damaged are an
// error when all others have been revoked. A filter without a condition is refused.
func (k *Keyring) RevokeWhere(ctx context.Context, by Principal, which Filter) (revoked int, err error) {
	if by.Scope != ScopeReadWrite {
		return 0, ErrScope
	}
	which.Status = StatusAny
	if which == (Filter{}) {
		return 0, &FieldError{"userId", "or serviceAccountId or mintedBy is required: it says whose keys to revoke"}
	}
	which.Status = StatusActive
	own := false // the caller's own key goes last: the rest would be refused to it
	var unread error
	before, passes := 0, 1
	for after, more := (ID{}), true; more; {
		page, err := k.list(ctx, by, ListQuery{Filter: which, After: after, Limit: revokeSlice}, func(err error) error {
			unread = err
			return nil
		})
		if err != nil {
			return revoked, err
		}
		for i := range page.Keys {
			if own = own || page.Keys[i].ID == by.KeyID; page.Keys[i].ID == by.KeyID {
				continue
			}
			if _, err := k.Revoke(ctx, by, page.Keys[i].ID); err != nil && !errors.Is(err, ErrNotFound) {
				return revoked, err
			}
			revoked++
		}
		after, more = page.Next, !page.Next.IsZero()
		if !more && revoked > before && passes < maxPasses { // until one finds none: these keys may have made others
			before, more = revoked, true
			passes++
		}
	}
	if own {
		if _, err := k.Revoke(ctx, by, by.KeyID); err != nil {
			return revoked, err
		}
		revoked++
	}
	if unread != nil {
		return revoked, unavailable("revoking keys, of which some cannot be read", unread)
	}
	return revoked, nil
}
