package apikey

import (
	"context"
	"errors"
	"time"
)

// removalGrace is how long a Keyring is open before it removes anything: a machine
// that starts with a clock that is ahead has set it by then.
const removalGrace = censusInterval / 2

// outlived reports whether the record of a key has been kept for as long as the
// policy says after the key ended.
func (k *Keyring) outlived(key *Key) bool {
	if time.Since(k.opened) < removalGrace {
		return false
	}
	retention := time.Duration(k.retention.Load())
	end := key.RevokedAt
	if end.IsZero() {
		end = key.ExpiresAt
	}
	return retention > 0 && !end.IsZero() && k.elapsed().Sub(end) > retention
}

// elapsed is a time that does not follow the wall clock when it jumps ahead: what
// is removed does not come back when the jump is undone.
func (k *Keyring) elapsed() time.Time {
	return earlier(k.clock(), k.opened.Round(0).Add(time.Since(k.opened)))
}

// remove deletes the records of keys that have outlived themselves, and all that
// belongs to them.
func (k *Keyring) remove(ctx context.Context, ids []ID) error {
	err := k.update(ctx, "remove", func(tx Tx) error {
		for _, id := range ids {
			r, err := getRecord(tx, id)
			if err != nil {
				return err
			}
			if r == nil || !k.outlived(&r.Key) {
				continue
			}
			if err := r.removeFrom(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, id := range ids {
		k.index.change(id)
	}
	k.kindsChanged() // the last of its kind may be gone
	return err
}

func (r *record) removeFrom(tx Tx) error {
	state := countLive(r.OrganizationID)
	if r.Revoked() {
		state = countRevoked
	}
	var err error
	for _, d := range []*digest{&r.digest, &r.imported} {
		if d.algorithm.foreign() {
			err = errors.Join(err, tx.Delete(TableForeign, d.foreignKey()))
		}
	}
	return errors.Join(err,
		count(tx, countIssued, -1),
		count(tx, state, -1),
		r.countDigest(tx, -1),
		removeUsage(tx, r.ID),
		tx.Delete(TableOrganizations, organizationKey(r.OrganizationID, r.ID)),
		tx.Delete(TableKeys, r.ID[:]),
	)
}
