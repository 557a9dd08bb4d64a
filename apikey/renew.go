package apikey

import (
	"context"
	"errors"
	"sync"
)

// Digests that were made in an earlier way are made anew when the key is next
// used, for that is when its secret is known. The writes wait in a short queue:
// who finds it full comes again with a later request.
const maxRenewals = 1000

type renewals struct {
	mu      sync.Mutex
	waiting map[ID]renewal
}

type renewal struct {
	from, to digest
	traces   map[digest]digest // of a foreign token, see tracesOf
}

func (k *Keyring) renew(id ID, to renewal) {
	k.renewals.mu.Lock()
	defer k.renewals.mu.Unlock()
	if len(k.renewals.waiting) < maxRenewals {
		if k.renewals.waiting == nil {
			k.renewals.waiting = make(map[ID]renewal)
		}
		k.renewals.waiting[id] = to
	}
}

// writeRenewals brings the digests to the store. A record that has changed its
// digest meanwhile stays as it is.
func (k *Keyring) writeRenewals(ctx context.Context) {
	k.renewals.mu.Lock()
	waiting := k.renewals.waiting
	k.renewals.waiting = nil
	k.renewals.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	renewed := make(map[ID]bool) // by any run
	err := k.update(ctx, "renew", func(tx Tx) error {
		for id, digests := range waiting {
			done, err := renewIn(tx, id, digests)
			if err != nil && !errors.Is(err, errDamaged) { // which must not hold up the others
				return err
			}
			renewed[id] = renewed[id] || done
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrOutcomeUnknown) {
		return // the observer was told; the keys stay good as they are
	}
	for id, done := range renewed {
		if done {
			k.index.change(id)
			k.kindsChanged()
		}
	}
}

func renewIn(tx Tx, id ID, digests renewal) (done bool, _ error) {
	r, err := getRecord(tx, id)
	if err != nil || r == nil || r.digest != digests.from || r.Revoked() {
		return false, err
	}
	if digests.to.algorithm.foreign() {
		if taken, err := tx.Get(TableForeign, digests.to.foreignKey()); err != nil || taken != nil {
			return false, err // the token was imported twice, by different hashes
		}
	}
	if err := r.countDigest(tx, -1); err != nil {
		return false, err
	}
	r.digest = digests.to
	if err := r.countDigest(tx, 1); err != nil {
		return false, err
	}
	if r.digest.algorithm.foreign() {
		was := r.imported
		if was.algorithm == 0 {
			was = digests.from
		}
		err := tx.Delete(TableForeign, digests.from.foreignKey())
		if trace, ok := digests.traces[was]; ok {
			err = errors.Join(err, tx.Delete(TableForeign, was.foreignKey()), tx.Put(TableForeign, trace.foreignKey(), id[:]))
			r.imported = trace
		}
		if err := errors.Join(err, tx.Put(TableForeign, digests.to.foreignKey(), id[:])); err != nil {
			return false, err
		}
	}
	return true, tx.Put(TableKeys, id[:], r.encode())
}
