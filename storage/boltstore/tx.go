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
	rooms          rooms // for the bytes of keys and values
}

type write struct {
	key, value []byte // value nil deletes
}

// begin readies the writer for a transaction. What it has allocated for the one before
// serves again.
func (w *writer) begin(s *Store, tx *bolt.Tx) {
	w.reader = s.newReader(tx)
	if w.writes == nil {
		w.writes = make([][]write, len(buckets))
	}
}

// end lets go of a transaction that has ended, and of the memory of its file.
func (w *writer) end() {
	w.next()
	for t := range w.writes {
		if cap(w.writes[t]) > keptWrites {
			w.writes[t] = nil
		}
	}
	w.reader = nil
	w.rooms.reset()
}

// next readies it for the next update. bbolt goes on using the bytes of the last.
func (w *writer) next() {
	for t := range w.writes {
		clear(w.writes[t])
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
	w.write(t, key, w.rooms.copy(value))
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
		w.writes[t] = slices.Insert(w.writes[t], at, write{w.rooms.copy(key), value})
	}
}

// keptWrites is of how many writes to a table the memory is kept for the next
// transaction.
const keptWrites = 4096

// rooms are pieces of memory for bytes that a transaction needs until it ends.
type rooms struct {
	all   [][]byte
	using int // the last one of them that has something in it
}

const (
	roomSize  = 16 << 10
	keptRooms = 32 // from one transaction to the next
)

func (r *rooms) reset() {
	r.all = slices.DeleteFunc(r.all, func(room []byte) bool { return cap(room) > roomSize })
	if len(r.all) > keptRooms {
		r.all = slices.Clone(r.all[:keptRooms])
	}
	for i := range r.all {
		r.all[i] = r.all[i][:0]
	}
	r.using = 0
}

// copy returns a copy of b, which is not nil.
func (r *rooms) copy(b []byte) []byte {
	for r.using < len(r.all) && cap(r.all[r.using])-len(r.all[r.using]) < len(b) {
		r.using++
	}
	if r.using == len(r.all) {
		r.all = append(r.all, make([]byte, 0, max(roomSize, len(b))))
	}
	room := r.all[r.using]
	from := len(room)
	room = append(room, b...)
	r.all[r.using] = room
	return room[from:len(room):len(room)]
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
