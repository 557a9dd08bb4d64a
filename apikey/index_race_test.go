package apikey

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// A reader that meets a writer waits for him: a key in the index must not be
// looked for in a store that may be gone.
func TestKeyThatIsBeingMovedIsStillFound(t *testing.T) {
	x := newIndex(minCapacity)
	id := indexIDs(1)[0]
	at := x.put(indexKey(id, 0))
	s, sequence := &x.stripes[uint64(at.number-1)/ways%stripeCount], x.word(uint64(at.number-1), wordSequence)
	for range 20 {
		s.mu.Lock()
		sequence.Add(1)
		var began atomic.Bool
		found := make(chan bool)
		go func() {
			began.Store(true)
			found <- x.holds(id)
		}()
		for !began.Load() {
			runtime.Gosched()
		}
		for range 1000 {
			runtime.Gosched()
		}
		sequence.Add(1)
		s.mu.Unlock()
		if !<-found {
			t.Fatal("a key was not found while its entry was written")
		}
	}
}

// An entry is written over and over with two keys by turns, and its texts move:
// a reader sees one of them, whole.
func TestReaderNeverSeesHalfOfAKey(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(2)
	keys := [2]*record{indexKey(ids[0], 0), indexKey(ids[1], 99)}
	entries := [2]entryView{keys[0].entry(), keys[1].entry()}
	at := x.put(keys[0])
	entry := uint64(at.number - 1)
	set := entry / ways
	var done atomic.Bool
	var running sync.WaitGroup
	seen := [2]int{}
	running.Go(func() {
		var e entryView
		for !done.Load() {
			if !x.read(entry, &e) {
				t.Error("nothing in the entry")
				return
			}
			which := 0
			if e.expires == keys[1].ExpiresAt.UnixMilli() {
				which = 1
			}
			seen[which]++
			high, low := halves(keys[which].ID)
			if e.high != high || e.low != low || e.digest != keys[which].digest || e.expires != keys[which].ExpiresAt.UnixMilli() ||
				e.organization != keys[which].OrganizationID || e.owner != keys[which].owner() {
				t.Errorf("half of %s: %+v", keys[which].ID, e)
				return
			}
		}
	})
	for i := range 300_000 {
		s := x.stripeOf(set)
		s.mu.Lock()
		x.write(entry, &entries[i%2])
		s.mu.Unlock()
	}
	done.Store(true)
	running.Wait()
	t.Logf("one was read %d times, the other %d", seen[0], seen[1])
}

// Of the atomics that order the two, the race detector must see some: else it takes
// the texts for those of a race.
func TestTextsAreWrittenBeforeTheyAreFound(t *testing.T) {
	x := newIndex(minCapacity)
	for n, id := range indexIDs(100) {
		k := indexKey(id, n)
		go x.put(k)
		e, found := x.found(id)
		for ; !found; e, found = x.found(id) {
			runtime.Gosched()
		}
		// A comparison alone is nothing to the detector.
		if got := append([]byte(e.organization), e.owner...); string(got) != k.OrganizationID+k.owner() {
			t.Fatalf("%s: found %q", id, got)
		}
	}
}

// More keys than room, few sets, and everybody at once: readers must find the
// key that they asked for or none, and never a version that was gone before
// they asked.
func TestFoundEntryIsAlwaysTheKeyThatWasAskedFor(t *testing.T) {
	x := newIndex(minCapacity)
	all := indexIDs(100 * minCapacity)
	var ids []ID // three times the room of eight sets
	for _, id := range all {
		if _, low := halves(id); x.setOf(low) < 8 && len(ids) < 3*8*ways {
			ids = append(ids, id)
		}
	}
	stored, answered := make([]atomic.Int64, len(ids)), make([]atomic.Int64, len(ids)) // versions
	var hits, changes atomic.Int64
	var running sync.WaitGroup
	for g := range 4 {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 13))
			for range 20_000 {
				n := random.IntN(len(ids))
				id := ids[n]
				oldest := answered[n].Load()
				if e, ok := x.found(id); ok {
					hits.Add(1)
					if diff := mixedUp(&e, id); diff != "" {
						t.Errorf("asked for %s, found %s", id, diff)
						return
					}
					if e.expires-1 < oldest {
						t.Errorf("found version %d of a key that had version %d before", e.expires-1, oldest)
						return
					}
					continue
				}
				ticket := x.ticket(id)
				x.fillFrom(ticket, indexKey(id, int(stored[n].Load())))
			}
		})
	}
	for g := range 2 {
		running.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 14))
			for range 3_000 {
				n := random.IntN(len(ids)/2)*2 + g // each key has one writer
				next := stored[n].Add(1)
				x.change(ids[n])
				answered[n].Store(next)
				changes.Add(1)
			}
		})
	}
	running.Wait()
	t.Logf("%d hits, %d changes, %d keys, room for %d", hits.Load(), changes.Load(), len(ids), 8*ways)
	if hits.Load() == 0 {
		t.Error("nothing was ever found")
	}
}
