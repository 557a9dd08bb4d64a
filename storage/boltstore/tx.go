package boltstore

import (
	"bytes"
	"fmt"
	"slices"

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

// writer is the Tx of the updates of one transaction, one after the other. What an
// update writes waits here until it has succeeded, so that one that fails leaves
// nothing in the transaction that it shares with others.
type writer struct {
	*reader
	writes         [][]write // for each table, in the order of their keys
	wrote, deletes bool
	room           []byte // for the bytes of keys and values
}

type write struct {
	key, value []byte // value nil deletes
}

func (s *Store) newWriter(tx *bolt.Tx) *writer {
	return &writer{reader: s.newReader(tx), writes: make([][]write, len(buckets))}
}

// forget makes room for the next update. bbolt goes on using the bytes of the last.
func (w *writer) forget() {
	for t := range w.writes {
		w.writes[t] = w.writes[t][:0]
	}
	w.wrote, w.deletes = false, false
}

func (w *writer) Get(t apikey.Table, key []byte) ([]byte, error) {
	if at, written := w.find(t, key); written {
		return w.writes[t][at].value, nil
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
	w.write(t, key, w.copy(value))
	return nil
}

func (w *writer) Delete(t apikey.Table, key []byte) error {
	w.deletes = true
	w.write(t, key, nil)
	return nil
}

// find returns where among the writes to a table that of a key is, or belongs. Most
// updates write in the order of the keys.
func (w *writer) find(t apikey.Table, key []byte) (at int, written bool) {
	all := w.writes[t]
	if last := len(all) - 1; last < 0 || bytes.Compare(all[last].key, key) < 0 {
		return last + 1, false
	}
	return slices.BinarySearchFunc(all, key, func(w write, key []byte) int { return bytes.Compare(w.key, key) })
}

func (w *writer) write(t apikey.Table, key, value []byte) {
	w.wrote = true
	if at, written := w.find(t, key); written {
		w.writes[t][at].value = value
	} else {
		w.writes[t] = slices.Insert(w.writes[t], at, write{w.copy(key), value})
	}
}

// copy returns a copy of b, which is not nil.
func (w *writer) copy(b []byte) []byte {
	const least, most = 1 << 10, 16 << 10
	if w.room == nil || cap(w.room)-len(w.room) < len(b) {
		w.room = make([]byte, 0, max(least, min(2*cap(w.room), most), len(b)))
	}
	from := len(w.room)
	w.room = append(w.room, b...)
	return w.room[from:len(w.room):len(w.room)]
}

// apply hands the writes to bbolt, in the order of their keys: out of order, many
// keys in one page take time in the square of their number.
func (w *writer) apply() error {
	return guard(func() error {
		for t, writes := range w.writes {
			if len(writes) == 0 {
				continue
			}
			b, err := w.tx.CreateBucketIfNotExists(buckets[t])
			if err != nil {
				return err
			}
			for i := range writes {
				if err := writes[i].into(b, apikey.Table(t)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (w *write) into(b *bolt.Bucket, t apikey.Table) error {
	if w.value == nil {
		b.FillPercent = fillOfRest
		return b.Delete(w.key)
	}
	// The bucket stays the same one until the transaction ends, so that one
	// change decides for all.
	if t == apikey.TableKeys && b.FillPercent != fillOfRest && b.Get(w.key) == nil {
		b.FillPercent = fillOfNew
	} else {
		b.FillPercent = fillOfRest
	}
	return b.Put(w.key, w.value)
}
