package apikey

import (
	"context"
	"time"
)

// The census counts keys by what only their records tell. It reads a slice at a
// time and pauses as long as that took, many times over.
const (
	censusSlice    = 1000
	censusPause    = 500 // times as long as a slice took
	censusInterval = 10 * time.Minute
	enforceGrace   = time.Second // between a new retention and the census that follows it
	expiringSoon   = 7 * 24 * time.Hour
)

type census struct {
	expired, expiring uint64
	at                time.Time
}

func (k *Keyring) countUntil(ctx context.Context) {
	for ctx.Err() == nil {
		pause := censusInterval
		if k.takeCensus(ctx) != nil || k.forgetCalls(ctx, k.clock()) != nil {
			pause = k.flushEvery
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		case <-k.enforced:
			// Whose retention it is may be refused yet, and what is removed is gone.
			select {
			case <-ctx.Done():
			case <-time.After(enforceGrace):
			}
		}
	}
}

func (k *Keyring) takeCensus(ctx context.Context) error {
	now, removing := k.clock(), k.believesClock(ctx)
	found := &census{at: fromMillis(now.UnixMilli())}
	for from := (ID{}); ; {
		start := time.Now()
		var slice census
		var seen int
		var last ID
		var old []ID
		err := k.store.View(ctx, func(tx Reader) error {
			slice, seen, old = census{}, 0, nil
			return tx.Scan(TableKeys, Range{From: from[:], Limit: censusSlice}, func(key, value []byte) bool {
				if len(key) != len(last) {
					return true
				}
				last = ID(key)
				seen++
				if endless(value) { // as most are
					return seen < censusSlice
				}
				if r, err := decodeRecord(last, value); err == nil {
					switch {
					case removing && k.outlived(&r.Key):
						old = append(old, last)
					case r.Revoked() || r.ExpiresAt.IsZero():
					case r.Expired(now):
						slice.expired++
					case r.Expired(now.Add(expiringSoon)):
						slice.expiring++
					}
				}
				return seen < censusSlice
			})
		})
		found.expired += slice.expired
		found.expiring += slice.expiring
		if err == nil && len(old) > 0 {
			err = k.remove(ctx, old)
		}
		if err != nil {
			return err
		}
		if seen < censusSlice {
			k.census.Store(found)
			return nil
		}
		from = last.next()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(censusPause * time.Since(start)):
		}
	}
}

// Stats is a summary of a Keyring and its store.
type Stats struct {
	// Issued counts the keys in the store, Revoked those of them that are
	// revoked.
	Issued, Revoked uint64
	// Expired and ExpiringSoon count keys that are not revoked and whose life
	// has ended, or ends within 7 days, as of CountedAt. CountedAt is zero
	// until they have been counted.
	Expired, ExpiringSoon uint64
	CountedAt             time.Time
}

// Stats reads the counts of keys.
func (k *Keyring) Stats(ctx context.Context) (s Stats, err error) {
	err = k.view(ctx, "stats", func(tx Reader) (err error) {
		if s.Issued, err = counted(tx, countIssued); err != nil {
			return err
		}
		s.Revoked, err = counted(tx, countRevoked)
		return err
	})
	if err != nil {
		return s, unavailable("reading the counts of keys", err)
	}
	if found := k.census.Load(); found != nil {
		s.Expired, s.ExpiringSoon, s.CountedAt = found.expired, found.expiring, found.at
	}
	return s, nil
}

// IndexStats tells how the index does.
type IndexStats struct {
	Entries      int    // keys in the index
	Hits, Misses uint64 // lookups that found a key in it, and that did not
	Pending      int    // keys with usage that is not in the store
}

// IndexStats reads counters of the process; it does no I/O.
func (k *Keyring) IndexStats() IndexStats {
	s := IndexStats{Entries: k.index.entries(), Pending: k.recorder.size()}
	s.Hits, s.Misses = k.index.lookups()
	return s
}
