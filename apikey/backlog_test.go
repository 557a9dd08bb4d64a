package apikey

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// back has keys leave the index and come back to it, so that it knows no client.
func (s *swept) back() {
	s.recorder.index = newIndex(minCapacity)
	for _, id := range s.ids {
		s.slots[id] = s.recorder.index.put(indexKey(id, 0))
	}
}

func (s *swept) want(id ID, agent string, count uint64) {
	s.t.Helper()
	if got, err := usageOf(s.store, id); err != nil || got.LastUsedUserAgent != agent || got.Count != count {
		s.t.Errorf("the store has %+v, %v; want %d uses, the last one by %s", got, err, count, agent)
	}
}

func TestUseByTheClientThatTheStoreHasWaitsAlsoWhereTheIndexDoesNotKnowIt(t *testing.T) {
	const keys = 700
	s := newSwept(t, keys)
	for _, id := range s.ids {
		s.use(id, "ua")
	}
	s.flush(false)
	s.back()
	for _, id := range s.ids {
		s.use(id, "ua")
	}
	if n := s.flush(false); n != 0 {
		t.Errorf("%d keys were written at once", n)
	}
	if n := s.recorder.index.dirtyEntries(); n != 0 || s.size() != keys {
		t.Errorf("%d entries cannot be given to other keys; %d keys wait, want all", n, s.size())
	}
	for _, id := range s.ids {
		if p := s.pending(id); len(p) != 1 || p[0].count != 1 || p[0].used != s.now-1000 {
			t.Fatalf("pending: %+v", p)
		}
	}
	written := 0
	for range 60 {
		written += s.flush(false)
	}
	if written != keys || s.size() != 0 {
		t.Errorf("within a minute %d keys were written, and %d wait", written, s.size())
	}
	s.wantCounts()
}

func TestUseByAnotherClientIsWrittenAtOnceAlsoWhereOneWaits(t *testing.T) {
	s := newSwept(t, 1)
	id := s.ids[0]
	s.use(id, "one")
	s.flush(false)
	s.back()
	s.use(id, "one")
	s.flush(false)
	s.want(id, "one", 1)
	s.use(id, "two")
	s.flush(false)
	s.want(id, "two", 3)
}

func TestKeyThatWaitsIsLookedUpAgainForAnotherClientOnly(t *testing.T) {
	s := newSwept(t, 300)
	come := func(agent string) (reads, written int) {
		s.back()
		for _, id := range s.ids {
			s.use(id, agent)
		}
		before := s.reads
		written = s.flush(false)
		return s.reads - before, written
	}
	come("one")
	for range 3 {
		if _, written := come("one"); written != 0 {
			t.Errorf("%d keys were written at once", written)
		}
	}
	if reads, _ := come("one"); reads != 0 {
		t.Error("the client of keys that wait was looked for in the store")
	}
	if _, written := come("two"); written != 2*len(s.ids) {
		t.Errorf("%d uses were written, want those that waited and those by another client", written)
	}
	if reads, written := come("two"); reads != 1 || written != 0 {
		t.Errorf("what waited was by the client before: looked %d times, %d keys were written", reads, written)
	}
	minute := func() {
		for range 60 {
			s.flush(false)
		}
	}
	minute()
	s.wantCounts()
	s.want(s.ids[0], "two", 7)

	// Nor is it looked for when the use has just been written.
	if reads, written := come("two"); reads != 0 || written != 0 {
		t.Errorf("after the sweep: looked %d times, %d keys were written", reads, written)
	}
	minute()
	if _, written := come("one"); written != len(s.ids) {
		t.Errorf("%d uses by another client than that of the sweep were written at once", written)
	}
	if reads, written := come("two"); reads != 1 || written != len(s.ids) {
		t.Errorf("the client of the sweep, when another has come since: looked %d times, %d keys were written", reads, written)
	}
	come("two")
	minute()
	minute()
	if reads, _ := come("two"); reads != 1 {
		t.Error("who has not come for two sweeps is remembered")
	}
	minute()
	s.wantCounts()
}

// Two clients of a key can come to one flush when the key finds room in the index
// between them. The later one stays the last, whichever of them the store has.
func TestClientOfAnEarlierUseDoesNotTakeThePlaceOfOneThatWaits(t *testing.T) {
	for _, all := range []bool{false, true} {
		s := newSwept(t, 1)
		id := s.ids[0]
		s.use(id, "owner")
		s.flush(false)
		s.back()
		if all {
			s.use(id, "owner")
			s.flush(false) // to the backlog
		}
		earlier := Verdict{KeyID: id, at: s.now - 500} // it had no entry
		s.record(&earlier, "192.0.2.1", "other", nil)
		s.counts[id]++
		s.use(id, "owner")
		s.flush(all)
		for range 60 {
			s.flush(false)
		}
		s.want(id, "owner", s.counts[id])
	}
}

// A sweep comes to a key some writes after it was found to have nothing new.
func TestClientThatComesDuringASweepIsTheOneThatTheStoreHas(t *testing.T) {
	s := newSwept(t, 2)
	id, other := s.ids[0], s.ids[1]
	s.use(id, "one")
	s.flush(false)
	s.back()
	s.use(id, "one")
	s.flush(false) // to the backlog
	s.use(id, "one")
	s.use(other, "one")
	s.now += time.Minute.Milliseconds()
	meanwhile := func() { s.use(id, "two") }
	update := func(_ context.Context, fn func(Tx) error, _ func()) error {
		err := fn(s.store)
		meanwhile()
		meanwhile = func() {}
		return err
	}
	if _, err := s.recorder.flush(context.Background(), s.now, s.store.View, update, false); err != nil {
		t.Fatal(err)
	}
	s.want(id, "two", 4)
	s.back()
	s.use(id, "one")
	s.flush(false)
	s.want(id, "one", 5)
}

func TestBacklogIsBoundedAndSweptEarlyWhenItFills(t *testing.T) {
	u := spilling()
	u.backlog.due(1, time.Minute, time.Second, false) // a sweep of nothing: the next is due in a minute
	id := func(n int) ID { return ID{12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)} }
	for n := range maxBacklog {
		if !u.backlog.add(&pendingUse{id: id(n), used: 1, count: 1}) {
			t.Fatalf("no room after %d keys", n)
		}
	}
	if u.backlog.add(&pendingUse{id: id(maxBacklog), used: 1, count: 1}) {
		t.Error("the backlog takes any number of keys")
	}
	if !u.backlog.add(&pendingUse{id: id(0), used: 2, count: 1}) {
		t.Error("a key that is in the backlog finds no room there")
	}
	if u.backlog.add(&pendingUse{id: id(0), used: 2, count: math.MaxUint32}) {
		t.Error("the backlog counts more than it can")
	}
	swept := 0
	for now := int64(1000); now < 20_000; now += 1000 {
		ids := u.backlog.due(now, time.Minute, time.Second, false)
		if !slices.IsSortedFunc(ids, ID.compare) {
			t.Error("a sweep is not in the order of the store")
		}
		for _, p := range u.waiting(slices.Values(ids)) {
			u.doneWaiting(&p, nil)
			swept++
		}
	}
	if swept != maxBacklog || u.size() != 0 {
		t.Errorf("%d keys were swept, and %d wait", swept, u.size())
	}
}

// Keys come and go, clients change, and now and then the store takes nothing.
func TestUsesThatArePutOffAreCountedOnce(t *testing.T) {
	s := newSwept(t, 300)
	random := rand.New(rand.NewPCG(1, 2))
	agents := []string{"one", "two"}
	last := make(map[ID]string)
	for range 200 {
		for range 50 {
			id, agent := s.ids[random.IntN(len(s.ids))], agents[min(1, random.IntN(10))]
			if random.IntN(4) == 0 {
				s.slots[id] = slot{} // it finds no room
			}
			s.now++ // a use has a time of its own
			s.use(id, agent)
			last[id] = agent
		}
		switch random.IntN(10) {
		case 0:
			s.flush(true)
			s.back()
		case 1:
			lost := func(context.Context, func(Tx) error, func()) error { return errLost }
			if _, err := s.recorder.flush(context.Background(), s.now, s.store.View, lost, false); err != nil && !errors.Is(err, errLost) {
				t.Fatal(err)
			}
		default:
			s.flush(false)
		}
	}
	for range 60 {
		s.flush(false)
	}
	s.wantCounts()
	for id, agent := range last {
		s.want(id, agent, s.counts[id])
	}
	if s.size() != 0 {
		t.Errorf("%d keys wait after a minute", s.size())
	}
}
