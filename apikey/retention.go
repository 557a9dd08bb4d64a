package apikey

import (
	"context"
	"errors"
	"time"
)

const (
	// clockGrace is after what time a machine that started with a clock that was
	// ahead has set it.
	clockGrace = censusInterval / 2
	// clockDoubt is by how much a clock is ahead at the least that removes what
	// should stay for long.
	clockDoubt = 24 * time.Hour
)

// believesClock reports whether records may be removed by what the clock says. At the
// start it is believed when the newest key was made not long ago.
func (k *Keyring) believesClock(ctx context.Context) bool {
	if time.Since(k.opened) >= clockGrace {
		return true
	}
	var newest ID
	_ = k.store.View(ctx, func(tx Reader) error {
		return tx.Scan(TableKeys, Range{Reverse: true, Limit: 1}, func(key, _ []byte) bool {
			copy(newest[:], key)
			return false
		})
	})
	return k.clock().Sub(newest.time()) < clockDoubt
}

// outlived reports whether the record of a key has been kept for as long as the
// policy says after the key ended.
func (k *Keyring) outlived(key *Key) bool {
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
