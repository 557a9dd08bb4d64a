package storagetest

import (
	"bytes"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// lender reads for one transaction and spoils what it lent when that ends.
type lender struct {
	from apikey.Reader
	lent [][]byte
}

func (l *lender) lend(b []byte) []byte {
	b = bytes.Clone(b)
	l.lent = append(l.lent, b)
	return b
}

func (l *lender) takeBack() {
	for _, b := range l.lent {
		overwrite(b)
	}
}

func overwrite(b []byte) {
	for i := range b {
		b[i] = 0xdb
	}
}

func (l *lender) Get(t apikey.Table, key []byte) ([]byte, error) {
	value, err := l.from.Get(t, key)
	return l.lend(value), err
}

func (l *lender) Scan(t apikey.Table, r apikey.Range, yield func(key, value []byte) bool) error {
	return l.from.Scan(t, r, func(key, value []byte) bool {
		return yield(l.lend(key), l.lend(value))
	})
}

// recorder is the Tx of one run. It remembers what the run wrote.
type recorder struct {
	lender
	to      apikey.Tx
	changes []change
}

func (r *recorder) run(tx apikey.Tx, fn func(apikey.Tx) error) error {
	r.from, r.to = tx, tx
	defer r.takeBack()
	return fn(r)
}

func (r *recorder) Put(t apikey.Table, key, value []byte) error {
	r.changes = append(r.changes, change{t, bytes.Clone(key)})
	return r.to.Put(t, key, value)
}

func (r *recorder) Delete(t apikey.Table, key []byte) error {
	r.changes = append(r.changes, change{t, bytes.Clone(key)})
	return r.to.Delete(t, key)
}
