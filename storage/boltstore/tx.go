package boltstore

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// What a Tx takes.
const (
	maxKeyBytes   = 512
	maxValueBytes = 64 << 10
)

// How full bbolt leaves a page that it splits. The ids of keys grow with time, so
// that pages of new keys fill up in order and need no room. A record that is
// changed may need some, and so does what is put between others.
const (
	fillOfNew  = 1.0
	fillOfRest = 0.9
)

// buckets holds the name of each table's bucket, by the number of the table.
var buckets = func() (names [][]byte) {
	for _, t := range apikey.Tables() {
		names = append(names, []byte(t.String()))
	}
	return names
}()

// reader is the Reader of one transaction. What it hands out lies in the mapped
// file and is gone when the transaction ends.
type reader struct {
	store *Store
	tx    *bolt.Tx
}

func (r *reader) Get(t apikey.Table, key []byte) (value []byte, err error) {
	name := buckets[t]
	if err := guard(func() error {
		if b := r.tx.Bucket(name); b != nil {
			value = b.Get(key)
		}
		return nil
	}); err != nil {
		return nil, r.store.failed("reading", apikey.ErrUnavailable, err)
	}
	return value, nil
}

func (r *reader) Scan(t apikey.Table, within apikey.Range, yield func(key, value []byte) bool) (err error) {
	name, yielding := buckets[t], false
	defer func() {
		if yielding {
			return // a panic of the caller's own goes on
		}
		if p := recover(); p != nil {
			err = r.store.failed("reading", apikey.ErrUnavailable, damage(p))
		}
	}()
	b := r.tx.Bucket(name)
	if b == nil {
		return nil
	}
	c := b.Cursor()
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

// writer is the Tx of one update. What it writes waits here until the update has
// succeeded, so that one that fails leaves nothing in the transaction that it
// shares with others.
type writer struct {
	reader
	writes  map[place][]byte // nil deletes
	deletes bool
}

type place struct {
	table apikey.Table
	key   string
}

func (w *writer) Get(t apikey.Table, key []byte) ([]byte, error) {
	if value, written := w.writes[place{t, string(key)}]; written {
		return value, nil
	}
	return w.reader.Get(t, key)
}

func (w *writer) Put(t apikey.Table, key, value []byte) error {
	if len(key) == 0 || len(key) > maxKeyBytes {
		return fmt.Errorf("putting into %s: a key has 1 to %d bytes, this one %d", t, maxKeyBytes, len(key))
	}
	if len(value) > maxValueBytes {
		return fmt.Errorf("putting into %s: a value has up to %d bytes, this one %d", t, maxValueBytes, len(value))
	}
	w.write(t, key, append([]byte{}, value...))
	return nil
}

func (w *writer) Delete(t apikey.Table, key []byte) error {
	w.deletes = true
	w.write(t, key, nil)
	return nil
}

func (w *writer) write(t apikey.Table, key, value []byte) {
	if w.writes == nil {
		w.writes = make(map[place][]byte)
	}
	w.writes[place{t, string(key)}] = value
}

// apply hands the writes to bbolt, in the order of their keys: out of order, many
// keys in one page take time in the square of their number.
func (w *writer) apply() error {
	return guard(func() error {
		for _, at := range slices.SortedFunc(maps.Keys(w.writes), func(a, b place) int {
			return cmp.Or(cmp.Compare(a.table, b.table), strings.Compare(a.key, b.key))
		}) {
			if err := w.set(at, w.writes[at]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *writer) set(at place, value []byte) error {
	b, err := w.tx.CreateBucketIfNotExists(buckets[at.table])
	if err != nil {
		return err
	}
	if value == nil {
		b.FillPercent = fillOfRest
		return b.Delete([]byte(at.key))
	}
	// The bucket stays the same one until the transaction ends, so that one
	// change decides for all.
	if at.table == apikey.TableKeys && b.FillPercent != fillOfRest && b.Get([]byte(at.key)) == nil {
		b.FillPercent = fillOfNew
	} else {
		b.FillPercent = fillOfRest
	}
	return b.Put([]byte(at.key), value)
}
