package apikey

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// swept is a recorder with some keys in its index, and a store.
type swept struct {
	*recorder
	t      *testing.T
	store  tables
	ids    []ID
	slots  map[ID]slot
	now    int64
	counts map[ID]uint64
	reads  int // of the usage that the store has
}

func newSwept(t *testing.T, keys int) *swept {
	x := newIndex(minCapacity)
	s := &swept{
		recorder: newRecorder(x, time.Minute, time.Second),
		t:        t, store: tables{}, slots: make(map[ID]slot), now: 1_700_000_000_000, counts: make(map[ID]uint64),
	}
	inSet := make(map[uint64]int)
	for _, id := range indexIDs(2 * keys) {
		_, low := halves(id)
		if set := x.setOf(low); inSet[set] < ways && len(s.ids) < keys {
			inSet[set]++
			s.ids, s.slots[id] = append(s.ids, id), x.put(indexKey(id, 0))
		}
	}
	return s
}

func (s *swept) use(id ID, agent string) {
	v := Verdict{KeyID: id, entry: s.slots[id], at: s.now}
	s.record(&v, "192.0.2.1", agent, nil)
	s.counts[id]++
}

// flush is what the gateway does once in a second. It returns how many keys were
// written.
func (s *swept) flush(all bool) int {
	s.t.Helper()
	s.now += 1000
	view := func(ctx context.Context, fn func(Reader) error) error { s.reads++; return s.store.View(ctx, fn) }
	keys, err := s.recorder.flush(context.Background(), s.now, view, func(_ context.Context, fn func(Tx) error, _ func()) error { return fn(s.store) }, all)
	if err != nil {
		s.t.Fatal(err)
	}
	return keys
}

func (s *swept) wantCounts() {
	s.t.Helper()
	for _, id := range s.ids {
		if got, err := usageOf(s.store, id); err != nil || got.Count != s.counts[id] {
			s.t.Fatalf("the store has %+v of a key that was used %d times, %v", got, s.counts[id], err)
		}
	}
}

func TestSweepIsSpreadOverSomeFlushesAndDoneWithinTheResolution(t *testing.T) {
	const keys, parts = 2000, 7
	s := newSwept(t, keys)
	for _, id := range s.ids {
		s.use(id, "ua")
	}
	if n := s.flush(false); n != keys {
		t.Errorf("%d first uses were written, want %d", n, keys)
	}
	for _, id := range s.ids {
		s.use(id, "ua")
	}
	written, flushes := 0, 0
	for range 60 {
		if n := s.flush(false); n > 0 {
			written += n
			flushes++
			if n > keys/parts+1 {
				t.Errorf("%d keys were written at once", n)
			}
		}
	}
	if written != keys || flushes != parts {
		t.Errorf("within a minute %d keys were written in %d flushes, want %d in %d", written, flushes, keys, parts)
	}
	s.wantCounts()
}

// What is new is written at once, also of keys that the sweep has not come to yet.
func TestUsesDuringASweepAreCountedOnce(t *testing.T) {
	s := newSwept(t, 500)
	random := rand.New(rand.NewPCG(1, 2))
	agents := []string{"one", "two"}
	for range 300 {
		for range 300 {
			agent := 0
			if random.IntN(20) == 0 {
				agent = 1
			}
			s.use(s.ids[random.IntN(len(s.ids))], agents[agent])
		}
		s.flush(random.IntN(5) == 0)
	}
	s.flush(true)
	s.wantCounts()
	if s.size() != 0 {
		t.Errorf("%d keys wait after all was written", s.size())
	}
}

func TestSweepThatFailsBeginsAnewWithTheNextFlush(t *testing.T) {
	s := newSwept(t, 100)
	for range 2 {
		for _, id := range s.ids {
			s.use(id, "ua")
		}
		s.flush(false)
	}
	s.now += time.Minute.Milliseconds()
	lost := func(context.Context, func(Tx) error, func()) error { return errLost }
	if _, err := s.recorder.flush(context.Background(), s.now, s.store.View, lost, false); err == nil {
		t.Fatal("the flush did not fail")
	}
	for range 7 {
		s.flush(false)
	}
	s.wantCounts()
}
