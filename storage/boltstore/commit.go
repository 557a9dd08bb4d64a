package boltstore

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// maxGroup is how many updates share one commit, so that none waits for long.
const maxGroup = 256

// update is one call of Update. Its function runs on the goroutine of its
// caller, when the committer has given it the turn: that is where its panic
// belongs.
type update struct {
	turn chan *writer // closed when the update is answered
	ran  chan bool    // whether the function succeeded
	err  error        // why the transaction failed, when turn is closed
}

// Update implements [apikey.Store].
func (s *Store) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := &update{turn: make(chan *writer), ran: make(chan bool)}
	select {
	case s.queue <- u:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return s.failed("using", apikey.ErrUnavailable, errClosed)
	}
	var err error
	for w := range u.turn {
		err = u.run(w, fn)
	}
	if u.err != nil {
		return u.err // whatever fn saw or said, it was about a state that never came to be
	}
	return err
}

func (u *update) run(w *writer, fn func(apikey.Tx) error) (err error) {
	succeeded := false
	defer func() { u.ran <- succeeded }()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer w.store.recoverFault(&err)
	err = fn(w)
	succeeded = err == nil
	return err
}

// serve commits updates until the store closes.
func (s *Store) serve() {
	defer close(s.served)
	debug.SetPanicOnFault(true)
	for {
		select {
		case <-s.closing:
			return
		case first := <-s.queue:
			begun := time.Now()
			s.writing.Store(&begun)
			group, err := s.transact(first)
			s.writing.Store(nil)
			for _, u := range group {
				u.err = err
				close(u.turn)
			}
		}
	}
}

// transact runs an update and those that wait behind it in one transaction, and
// commits it. It returns the updates that took part, and what befell them all.
func (s *Store) transact(first *update) (group []*update, err error) {
	group = []*update{first}
	db, tx, err := s.begin(true)
	if err != nil {
		return group, err
	}
	rollback := func() error { return db.attempt(tx.Rollback) }
	defer func() {
		_ = rollback()
		db.idle.keep(db.version.tx)
	}()
	made := version{tx.ID(), s.signature}
	if made.tx != db.version.tx+1 {
		return group, s.failed("writing", apikey.ErrUnavailable, errForeign)
	}

	dirty := false
	w := &s.writer
	w.begin(s, tx)
	defer w.end()
	for i := 0; i < len(group); i++ {
		w.next()
		group[i].turn <- w
		if succeeded := <-group[i].ran; succeeded && w.wrote {
			if err := w.apply(); err != nil {
				_ = rollback()
				_, _ = s.reopen(db, err)
				return group, s.failed("writing", apikey.ErrUnavailable, err)
			}
			dirty = true
		}
		// Going backwards, bbolt's cursors stop at a page that was emptied
		// in their own transaction. So nobody comes after a deletion.
		if len(group) == maxGroup || w.deletes {
			break
		}
		select {
		case next := <-s.queue:
			group = append(group, next)
		default:
		}
	}
	if !dirty {
		return group, nil
	}

	if err := s.unmoved(); err != nil {
		return group, s.failed("writing", apikey.ErrUnavailable, err)
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
			return group, s.failed("writing", apikey.ErrUnavailable, err)
		}
		return group, s.failed("writing", apikey.ErrOutcomeUnknown, err)
	}
	db.version = made
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = made
	return group, nil
}
