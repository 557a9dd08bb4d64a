package boltstore

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// maxGroup is how many updates share one commit, so that none waits for long.
const maxGroup = 256

// update is one call of Update. Its function runs on the goroutine of its caller:
// that is where its panic belongs.
type update struct {
	fn  func(apikey.Tx) error
	err error // what fn returned

	// Of one that is committed by another.
	turn   chan *writer // closed when it is answered
	ran    chan bool    // whether the function succeeded
	failed error        // why the transaction failed, when turn is closed
}

// Update implements [apikey.Store]. The first of those who wait commits for all of
// them: a goroutine of the store would have to be woken by each, and to wake it again.
func (s *Store) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := &update{fn: fn, turn: make(chan *writer), ran: make(chan bool)}
	select {
	case s.leading <- struct{}{}:
		return s.lead(u)
	case s.queue <- u:
		return u.follow()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return s.failed("using", apikey.ErrUnavailable, errClosed)
	}
}

// lead commits an update, and those that wait behind it.
func (s *Store) lead(first *update) error {
	begun := time.Now()
	s.writing.Store(&begun)
	var followers []*update
	failed := errAbandoned
	defer func() {
		s.writing.Store(nil)
		<-s.leading // the next one need not wait until these are answered
		for _, u := range followers {
			u.failed = failed
			close(u.turn)
		}
	}()
	if failed = s.transact(first, &followers); failed != nil {
		return failed
	}
	return first.err
}

// follow leaves the commit to another.
func (u *update) follow() error {
	for w := range u.turn {
		u.take(w)
	}
	if u.failed != nil {
		return u.failed // whatever fn saw or said, it was about a state that never came to be
	}
	return u.err
}

func (u *update) take(w *writer) {
	succeeded := false
	defer func() { u.ran <- succeeded }()
	succeeded = u.run(w)
}

// run reports whether the function succeeded.
func (u *update) run(w *writer) bool {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer w.store.recoverFault(&u.err)
	u.err = u.fn(w)
	return u.err == nil
}

// transact runs an update and those that wait behind it in one transaction, and
// commits it. The error is what befell them all.
func (s *Store) transact(first *update, followers *[]*update) error {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, tx, err := s.begin(true)
	if err != nil {
		return err
	}
	rollback := func() error { return db.attempt(tx.Rollback) }
	defer func() {
		_ = rollback()
		db.idle.keep(db.version.tx)
	}()
	made := version{tx.ID(), s.signature}
	if made.tx != db.version.tx+1 {
		return s.failed("writing", apikey.ErrUnavailable, errForeign)
	}

	dirty := false
	w := &s.writer
	w.begin(s, tx)
	defer w.end()
	for u, more := first, true; more; {
		w.next()
		var succeeded bool
		if u == first {
			succeeded = u.run(w)
		} else {
			u.turn <- w
			succeeded = <-u.ran
		}
		if succeeded && w.wrote {
			if err := w.apply(); err != nil {
				_ = rollback()
				_, _ = s.reopen(db, err)
				return s.failed("writing", apikey.ErrUnavailable, err)
			}
			dirty = true
		}
		// Going backwards, bbolt's cursors stop at a page that was emptied
		// in their own transaction. So nobody comes after a deletion.
		if 1+len(*followers) == maxGroup || w.deletes {
			break
		}
		select {
		case u = <-s.queue:
			*followers = append(*followers, u)
		default:
			more = false
		}
	}
	if !dirty {
		return nil
	}

	if err := s.unmoved(); err != nil {
		return s.failed("writing", apikey.ErrUnavailable, err)
	}
	if err := guard(func() error {
		if db.version.writer != s.signature {
			if err := sign(tx, s.signature); err != nil {
				return err
			}
		}
		return s.commit(tx)
	}); err != nil {
		_ = rollback()
		// A commit fails before its meta page was written, or at it, or when
		// only the sync after it is missing. What can be read, tells.
		if again, failed := s.reopen(db, err); failed == nil && again.version != made {
			return s.failed("writing", apikey.ErrUnavailable, err)
		}
		return s.failed("writing", apikey.ErrOutcomeUnknown, err)
	}
	db.version = made
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = made
	return nil
}
