package apikey

import (
	"context"
	"time"
)

// A backup knows nothing of what happened after it was made. Restored as it is, it
// brings back keys that were revoked since. What is known of that from elsewhere is
// carried over into the restored store, and only ever takes rights away.

// Later is what became of a key after a backup was made.
type Later struct {
	// Revoked says that the key ended, RevokedAt when, if that is known, and
	// RevokedFor why.
	Revoked    bool
	RevokedAt  time.Time
	RevokedFor string
	// Scope is the right that it had at last.
	Scope Scope
	// ExpiresAt is when it ends; zero: never.
	ExpiresAt time.Time
}

// History tells what became of some keys. It leaves out keys of which it knows
// nothing.
type History func(ctx context.Context, ids []ID) (map[ID]Later, error)

// HistoryOf is the history that a later state of the store tells. A key that is
// not there was removed after it had ended.
func HistoryOf(later Store) History {
	return func(ctx context.Context, ids []ID) (map[ID]Later, error) {
		became := make(map[ID]Later, len(ids))
		err := later.View(ctx, func(tx Reader) error {
			for _, id := range ids {
				r, err := getRecord(tx, id)
				if err != nil {
					return err
				}
				if r == nil {
					became[id] = Later{Revoked: true}
					continue
				}
				became[id] = Later{r.Revoked(), r.RevokedAt, r.RevokedFor, r.Scope, r.ExpiresAt}
			}
			return nil
		})
		if err != nil {
			return nil, unavailable("reading what became of the keys", err)
		}
		return became, nil
	}
}

// Carried counts the keys that a history has changed.
type Carried struct {
	Revoked  int // are revoked now
	Shorter  int // end earlier
	Narrower int // may only read
}

// CarryOver brings a history into a restored store that nobody uses yet. A key
// gets the earlier end and the smaller scope of the two, and one that is revoked
// in either is revoked. It can be repeated.
func CarryOver(ctx context.Context, restored Store, became History, now time.Time) (total Carried, err error) {
	now = fromMillis(now.UnixMilli())
	for from := (ID{}); ; from = from.next() {
		ids, err := keysFrom(ctx, restored, from)
		if err != nil {
			return total, unavailable("reading the restored keys", err)
		}
		if len(ids) == 0 {
			return total, nil
		}
		from = ids[len(ids)-1]
		later, err := became(ctx, ids)
		if err != nil {
			return total, err
		}
		var slice Carried
		if err := restored.Update(ctx, func(tx Tx) error {
			slice = Carried{}
			for _, id := range ids {
				if what, known := later[id]; known {
					if err := slice.carry(tx, id, what, now); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return total, unavailable("carrying over what became of the keys", err)
		}
		total.Revoked += slice.Revoked
		total.Shorter += slice.Shorter
		total.Narrower += slice.Narrower
	}
}

func (c *Carried) carry(tx Tx, id ID, what Later, now time.Time) error {
	r, err := getRecord(tx, id)
	if err != nil || r == nil || r.Revoked() {
		return err
	}
	was := *r
	if what.Scope < r.Scope {
		r.Scope = what.Scope
		c.Narrower++
	}
	if end := what.ExpiresAt; !end.IsZero() && (r.ExpiresAt.IsZero() || end.Before(r.ExpiresAt)) {
		r.ExpiresAt = fromMillis(end.UnixMilli())
		c.Shorter++
	}
	if what.Revoked {
		if what.RevokedAt.IsZero() || what.RevokedAt.After(now) {
			what.RevokedAt = now
		}
		c.Revoked++
		_, err := r.revokeIn(tx, fromMillis(what.RevokedAt.UnixMilli()), what.RevokedFor)
		return err
	}
	if *r == was {
		return nil
	}
	return tx.Put(TableKeys, id[:], r.encode())
}

// keysFrom returns the ids of the next keys, in order.
func keysFrom(ctx context.Context, store Store, from ID) (ids []ID, err error) {
	err = store.View(ctx, func(tx Reader) error {
		ids = ids[:0]
		return tx.Scan(TableKeys, Range{From: from[:], Limit: revokeSlice}, func(key, _ []byte) bool {
			if len(key) == len(from) {
				ids = append(ids, ID(key))
			}
			return len(ids) < revokeSlice
		})
	})
	return ids, err
}

// SomeInCommon reports whether a store has one of the keys of another, or that one
// has none. A store without any is no later state of it.
func SomeInCommon(ctx context.Context, of, with Store) (common bool, err error) {
	for from := (ID{}); ; from = from.next() {
		ids, err := keysFrom(ctx, of, from)
		if err != nil {
			return false, unavailable("comparing two key stores", err)
		}
		if len(ids) == 0 {
			return from.IsZero(), nil
		}
		err = with.View(ctx, func(tx Reader) error {
			for _, id := range ids {
				value, err := tx.Get(TableKeys, id[:])
				if common = value != nil; common || err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return false, unavailable("comparing two key stores", err)
		}
		if common {
			return true, nil
		}
		from = ids[len(ids)-1]
	}
}
