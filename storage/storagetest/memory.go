package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// NewMemory returns an empty store that keeps its records in memory: the
// reference of the contract. Every state is an immutable value, so that a View
// is consistent because nothing it looks at can change. An Update copies the
// tables that it writes, which suits tests and nothing else.
func NewMemory() apikey.Store {
	m := new(memory)
	m.state.Store(&state{})
	return m
}

type memory struct {
	running sync.RWMutex // held for reading by transactions, so that Close waits for them
	closed  bool
	writing sync.Mutex // one update at a time
	state   atomic.Pointer[state]
}

// state holds the records of each table in the order of their keys. Neither it
// nor anything below it is changed once it is stored.
type state map[apikey.Table][]record

type record struct{ key, value []byte }

func search(records []record, key []byte) (int, bool) {
	return slices.BinarySearchFunc(records, key, func(r record, key []byte) int {
		return bytes.Compare(r.key, key)
	})
}

func (m *memory) View(ctx context.Context, fn func(apikey.Reader) error) error {
	m.running.RLock()
	defer m.running.RUnlock()
	if err := m.refusal(ctx); err != nil {
		return err
	}
	return fn(*m.state.Load())
}

func (m *memory) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	m.running.RLock()
	defer m.running.RUnlock()
	m.writing.Lock()
	defer m.writing.Unlock()
	if err := m.refusal(ctx); err != nil {
		return err
	}
	tx := &memoryTx{state: *m.state.Load(), written: make(map[apikey.Table]map[string][]byte)}
	if err := fn(tx); err != nil {
		return err
	}
	m.state.Store(tx.result())
	return nil
}

func (m *memory) refusal(ctx context.Context) error {
	if m.closed {
		return fmt.Errorf("%w: the store in memory is closed", apikey.ErrUnavailable)
	}
	return ctx.Err()
}

func (m *memory) Close() error {
	m.running.Lock()
	defer m.running.Unlock()
	m.closed = true
	return nil
}

func (s state) Get(t apikey.Table, key []byte) ([]byte, error) {
	if i, found := search(s[t], key); found {
		return s[t][i].value, nil
	}
	return nil, nil
}

func (s state) Scan(t apikey.Table, r apikey.Range, yield func(key, value []byte) bool) error {
	records := s[t]
	if len(r.To) > 0 {
		end, _ := search(records, r.To)
		records = records[:end]
	}
	start, _ := search(records, r.From)
	records = records[start:]
	if r.Reverse {
		records = slices.Clone(records)
		slices.Reverse(records)
	}
	for _, each := range records {
		if !yield(each.key, each.value) {
			break
		}
	}
	return nil
}

// memoryTx is a state and what is written over it; a nil value is a deletion.
type memoryTx struct {
	state
	written map[apikey.Table]map[string][]byte
}

func (tx *memoryTx) Get(t apikey.Table, key []byte) ([]byte, error) {
	if value, found := tx.written[t][string(key)]; found {
		return value, nil
	}
	return tx.state.Get(t, key)
}

func (tx *memoryTx) Put(t apikey.Table, key, value []byte) error {
	if len(key) < 1 || len(key) > maxKey {
		return errors.New("storagetest: the key is empty or too long")
	}
	if len(value) > maxValue {
		return errors.New("storagetest: the value is too long")
	}
	tx.write(t, key, append([]byte{}, value...))
	return nil
}

func (tx *memoryTx) Delete(t apikey.Table, key []byte) error {
	tx.write(t, key, nil)
	return nil
}

func (tx *memoryTx) write(t apikey.Table, key, value []byte) {
	if tx.written[t] == nil {
		tx.written[t] = make(map[string][]byte)
	}
	tx.written[t][string(key)] = value
}

// result returns the state that the transaction leaves.
func (tx *memoryTx) result() *state {
	next := maps.Clone(tx.state)
	for t, written := range tx.written {
		records := slices.Clone(next[t])
		for key, value := range written {
			i, found := search(records, []byte(key))
			switch {
			case found && value == nil:
				records = slices.Delete(records, i, i+1)
			case found:
				records[i].value = value
			case value != nil:
				records = slices.Insert(records, i, record{[]byte(key), value})
			}
		}
		next[t] = records
	}
	return &next
}
