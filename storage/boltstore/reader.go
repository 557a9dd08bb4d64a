package boltstore

import (
	"bytes"
	"sync"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// reader is the Reader of one transaction. What it hands out lies in the mapped
// file and is gone when the transaction ends.
type reader struct {
	store   *Store
	tx      *bolt.Tx
	cursors []*bolt.Cursor // of the tables that were looked at

	// doubtful says that what was read may look as it does because the file was
	// cut off, whose end then reads as zeros.
	doubtful bool
}

func (s *Store) newReader(tx *bolt.Tx) *reader {
	return &reader{store: s, tx: tx, cursors: make([]*bolt.Cursor, len(buckets))}
}

// cursor returns the cursor of a table, or nil while nothing is in it. It is moved
// by whoever uses it next.
func (r *reader) cursor(t apikey.Table) *bolt.Cursor {
	if r.cursors[t] == nil {
		if b := r.tx.Bucket(buckets[t]); b != nil {
			r.cursors[t] = b.Cursor()
		}
	}
	return r.cursors[t]
}

func (r *reader) Get(t apikey.Table, key []byte) (value []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			value, err = nil, r.store.failed("reading", apikey.ErrUnavailable, damage(p))
		}
	}()
	if c := r.cursor(t); c != nil {
		if found, stored := c.Seek(key); bytes.Equal(found, key) {
			value = stored
		}
	}
	if len(value) == 0 || value[len(value)-1] == 0 {
		r.doubtful = true
	}
	return value, nil
}

func (r *reader) Scan(t apikey.Table, within apikey.Range, yield func(key, value []byte) bool) (err error) {
	r.doubtful = true
	yielding := false
	defer func() {
		if yielding {
			return // a panic of the caller's own goes on
		}
		if p := recover(); p != nil {
			err = r.store.failed("reading", apikey.ErrUnavailable, damage(p))
		}
	}()
	c := r.cursor(t)
	if c == nil {
		return nil
	}
	c = c.Bucket().Cursor() // one of its own: yield may look at the table
	for key, value := first(c, within); key != nil && contains(within, key); {
		yielding = true
		more := yield(key, value)
		yielding = false
		switch {
		case !more:
			return nil
		case within.Reverse:
			key, value = c.Prev()
		default:
			key, value = c.Next()
		}
	}
	return nil
}

// first moves the cursor to the record at which a scan starts, if there is one.
func first(c *bolt.Cursor, within apikey.Range) (key, value []byte) {
	if !within.Reverse {
		return c.Seek(within.From)
	}
	if len(within.To) > 0 {
		if key, _ := c.Seek(within.To); key != nil {
			return c.Prev()
		}
	}
	return c.Last()
}

func contains(r apikey.Range, key []byte) bool {
	return bytes.Compare(key, r.From) >= 0 && (len(r.To) == 0 || bytes.Compare(key, r.To) < 0)
}

// idleReaders keeps read transactions from one View to the next: to begin one
// takes longer than to look a key up. All of them see what was committed last, and
// none is kept while something is written. bbolt waits for every reader to end
// before it maps a file that has grown, and leaves the pages alone that the oldest
// one may see.
type idleReaders struct {
	mu    sync.Mutex
	state int // the transaction that was committed last; writing: none is kept
	kept  []*reader
}

const (
	writing  = -1
	keptMost = 16
)

// take returns a reader that was kept, if there is one.
func (i *idleReaders) take() *reader {
	i.mu.Lock()
	defer i.mu.Unlock()
	last := len(i.kept) - 1
	if last < 0 {
		return nil
	}
	r := i.kept[last]
	i.kept = i.kept[:last]
	return r
}

// done keeps a reader that is not used any more, or ends it.
func (i *idleReaders) done(r *reader) {
	i.mu.Lock()
	keep := r.tx.ID() == i.state && len(i.kept) < keptMost
	if keep {
		i.kept = append(i.kept, r)
	}
	i.mu.Unlock()
	if !keep {
		_ = r.tx.Rollback()
	}
}

// keep says which state readers see from now on that may be kept.
func (i *idleReaders) keep(state int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state = state
}

// end ends those that are kept, and keeps no other.
func (i *idleReaders) end() {
	i.mu.Lock()
	kept := i.kept
	i.kept, i.state = nil, writing
	i.mu.Unlock()
	for _, r := range kept {
		_ = r.tx.Rollback()
	}
}
