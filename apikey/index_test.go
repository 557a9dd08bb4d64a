package apikey

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// indexKey is a record for the index whose every part tells which key it is of,
// and which version of it.
func indexKey(id ID, version int) *record {
	r := &record{Key: Key{
		ID:             id,
		OrganizationID: "organization-" + id.String(),
		ExpiresAt:      time.UnixMilli(int64(version) + 1),
	}}
	if owner := strings.Repeat("o", version%100) + id.String(); version%2 == 0 {
		r.UserID = owner
	} else {
		r.ServiceAccountID = owner
	}
	r.digest = peppers(nil).digestOf(fmt.Sprint(id, version))
	return r
}

// mixedUp says how an entry differs from the key that was asked for.
func mixedUp(e *entryView, id ID) string {
	version := int(e.expires) - 1
	want := indexKey(id, version)
	high, low := halves(id)
	switch {
	case e.high != high || e.low != low:
		var other ID
		putHalves(&other, e.high, e.low)
		return "id " + other.String()
	case e.organization != want.OrganizationID:
		return "organization " + e.organization
	case e.owner != want.owner() || e.state&stateServiceAccount != 0 != (want.ServiceAccountID != ""):
		return "owner " + e.owner
	case e.digest != want.digest:
		return "digest"
	}
	return ""
}

// indexIDs returns n ids as the gateway makes them, but always the same.
func indexIDs(n int) []ID {
	random := rand.New(rand.NewPCG(7, 8))
	ids := make([]ID, n)
	for i := range ids {
		putHalves(&ids[i], (1_700_000_000_000+uint64(i))<<16|0x7000, random.Uint64()>>2|1<<63)
	}
	return ids
}

func (x *index) put(r *record) slot { return x.fillFrom(x.ticket(r.ID), r) }

func (x *index) fillFrom(t ticket, r *record) slot {
	e := r.entry()
	return x.fill(t, &e)
}

func (x *index) found(id ID) (e entryView, ok bool) {
	ok = x.find(id, &e)
	return e, ok
}

func (x *index) holds(id ID) bool {
	return x.find(id, new(entryView))
}

func TestIndexAgreesWithAMap(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(3 * minCapacity)
	random := rand.New(rand.NewPCG(9, 10))
	store := make(map[ID]int) // the version of each key
	hits := 0
	for range 200_000 {
		id := ids[min(random.IntN(len(ids)), random.IntN(len(ids)))] // some more often
		switch random.IntN(12) {
		case 0:
			store[id]++
			x.change(id)
		case 1, 2, 3, 4:
			x.put(indexKey(id, store[id]))
		default:
			e, ok := x.found(id)
			if !ok {
				continue
			}
			hits++
			if diff := mixedUp(&e, id); diff != "" {
				t.Fatalf("asked for %s, found %s", id, diff)
			}
			if int(e.expires)-1 != store[id] {
				t.Fatalf("found version %d of %s, which has version %d", e.expires-1, id, store[id])
			}
		}
	}
	held := 0
	for _, id := range ids {
		if e, ok := x.found(id); ok && mixedUp(&e, id) == "" {
			held++
		}
	}
	if n := x.entries(); n != minCapacity || held == 0 || held > n {
		t.Errorf("%d entries, %d keys are found, the capacity is %d", n, held, minCapacity)
	}
	t.Logf("%d finds agreed; %d of %d keys are held at the end", hits, held, len(ids))
}

func TestIndexTellsKeysOfOneHalfApart(t *testing.T) {
	x := newIndex(minCapacity)
	one, other := ID{0: 1, 8: 0x80, 15: 1}, ID{0: 2, 8: 0x80, 15: 1}
	x.put(indexKey(one, 0))
	if x.holds(other) {
		t.Error("a key is found by the low half of its id")
	}
	x.put(indexKey(other, 1))
	x.change(one)
	if e, ok := x.found(other); !ok || mixedUp(&e, other) != "" || x.holds(one) {
		t.Error("a change of one key has touched the other")
	}
	for name, id := range map[string]ID{"the zero id": {}, "an id without a low half": {0: 1}, "an id without a high half": {15: 9}} {
		if x.holds(id) {
			t.Errorf("%s is found in an index without it", name)
		}
		x.change(id)
		if entries := x.entries(); id[15] == 0 && (x.put(indexKey(id, 0)) != (slot{}) || x.entries() != entries) {
			t.Errorf("%s, which marks an empty entry, was given one", name)
		}
	}
}

func TestIndexIsBounded(t *testing.T) {
	for capacity, want := range map[int]int{-1: 4096, 0: 4096, 1: 4096, 4096: 4096, 4097: 8192, 8192: 8192, 10000: 16384} {
		x := newIndex(capacity)
		if got := len(x.tags); got != want {
			t.Errorf("capacity %d makes room for %d keys, want %d", capacity, got, want)
		}
	}
	x := newIndex(minCapacity)
	ids := indexIDs(20 * minCapacity)
	for range 2 {
		for _, id := range ids {
			x.put(indexKey(id, 0))
		}
	}
	texts := 0
	for i := range x.stripes {
		texts += len(x.stripes[i].text.Load().bytes)
	}
	if x.entries() > minCapacity || texts > minCapacity*1024 {
		t.Errorf("%d fills left %d entries and %d bytes of text", 40*minCapacity, x.entries(), texts)
	}
}

// A fill holds what the store said before the change.
func TestFillThatRacedAChangeIsThrownAway(t *testing.T) {
	id := indexIDs(1)[0]
	for name, change := range map[string]func(x *index){
		"changed":           func(x *index) { x.change(id) },
		"changed twice":     func(x *index) { x.change(id); x.change(id) },
		"closed":            func(x *index) { x.close() },
		"closed and opened": func(x *index) { x.close(); x.open() },
	} {
		for _, held := range []bool{false, true} {
			x := newIndex(minCapacity)
			if held {
				x.put(indexKey(id, 0))
			}
			ticket := x.ticket(id)
			change(x)
			if at := x.fillFrom(ticket, indexKey(id, 0)); at != (slot{}) || x.holds(id) {
				t.Errorf("%s (held before: %v): the outdated record is found", name, held)
			}
			x.open()
			if at := x.put(indexKey(id, 1)); at == (slot{}) || !x.holds(id) {
				t.Errorf("%s (held before: %v): the new record is not found", name, held)
			}
		}
	}
}

func TestClosedIndexKnowsNothingUntilItIsFilledAgain(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(500)
	for _, id := range ids {
		x.put(indexKey(id, 0))
	}
	x.close()
	whileClosed := x.ticket(ids[0])
	for _, id := range ids {
		if x.put(indexKey(id, 0)); x.holds(id) {
			t.Fatal("a closed index answers")
		}
	}
	x.open()
	x.fillFrom(whileClosed, indexKey(ids[0], 0))
	for _, id := range ids {
		if x.holds(id) {
			t.Fatal("an index answers with what it heard before or while it was closed")
		}
	}
	for _, id := range ids {
		if x.put(indexKey(id, 1)); !x.holds(id) {
			t.Fatal("an index that was opened again does not remember")
		}
	}
}

// The keys in use fill the index to a half; then every key of a store ten times
// its capacity comes by once, while those in use go on.
func TestReadingThroughAllKeysDoesNotDriveOutThoseInUse(t *testing.T) {
	const room = 2 * minCapacity
	for name, share := range map[string]float64{"half of the room": 0.5, "all of the room": 1} {
		x := newIndex(room)
		all := indexIDs(int(share*room) + 10*room)
		used, cold := all[:int(share*room)], all[int(share*room):]
		random := rand.New(rand.NewPCG(11, 12))
		check := func(id ID) (hit bool) {
			if hit = x.holds(id); !hit {
				x.put(indexKey(id, 0))
			}
			return hit
		}
		for range 6 * len(used) { // they have been in use for a while
			check(used[random.IntN(len(used))])
		}
		rate := func(lookups, coldEach int) float64 {
			hits := 0
			for range lookups {
				if check(used[random.IntN(len(used))]) {
					hits++
				}
				for range coldEach {
					check(cold[0])
					cold = cold[1:]
				}
			}
			return float64(hits) / float64(lookups)
		}
		before := rate(2*room, 0)
		during := rate(len(cold)/10, 10) // ten strangers for each request of a key in use
		after := rate(2*room, 0)
		t.Logf("keys in use take %s: hit rate %.1f %% before the scan, %.1f %% in it, %.1f %% after it", name, 100*before, 100*during, 100*after)
		if during < 0.93*before {
			t.Errorf("%s: the scan drove keys in use out: hit rate %.2f, before %.2f", name, during, before)
		}
	}
}

func TestKeysThatComeIntoUseTakeThePlaceOfThoseThatWentOutOfIt(t *testing.T) {
	const room = 2 * minCapacity
	all := indexIDs(3 * room)
	yesterday, today := all[:2*room], all[2*room:2*room+room/2]
	random := rand.New(rand.NewPCG(15, 16))
	for name, next := range map[string]func(i int) int{
		"at random": func(int) int { return random.IntN(len(today)) },
		"by turns":  func(i int) int { return i },
	} {
		x := newIndex(room)
		check := func(id ID) (hit bool) {
			if hit = x.holds(id); !hit {
				x.put(indexKey(id, 0))
			}
			return hit
		}
		for range 10 * len(yesterday) {
			check(yesterday[random.IntN(len(yesterday))])
		}
		var rates []string
		last := 0.0
		for range 10 {
			hits := 0
			for i := range today {
				if check(today[next(i)]) {
					hits++
				}
			}
			last = float64(hits) / float64(len(today))
			rates = append(rates, fmt.Sprintf("%.0f %%", 100*last))
		}
		t.Logf("hit rate while each key is asked for once, and once more, ..., %s: %s", name, strings.Join(rates, ", "))
		if last < 0.9 {
			t.Errorf("keys in use that take half of the room are hit %.0f %% of the time", 100*last)
		}
	}
}

// Some sets get more keys than others. What finds no room there is read from the store
// each time it is used, and its usage written alone.
func TestNearlyAllKeysInUseFindRoomWhereAQuarterIsFree(t *testing.T) {
	x := newIndex(1 << 16)
	ids := indexIDs(3 << 14)
	without := 0
	for _, id := range ids {
		if x.put(indexKey(id, 0)) == (slot{}) || !x.holds(id) {
			without++
		}
	}
	for _, id := range ids {
		if !x.holds(id) {
			without++
		}
	}
	if without > len(ids)/200 {
		t.Errorf("%d of %d keys found no room, or lost it", without, len(ids))
	}
}

func TestEntryWithUsageIsNeverGivenAway(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(20 * minCapacity)
	slots := make(map[ID]slot)
	for _, id := range ids {
		if at := x.put(indexKey(id, 0)); at != (slot{}) {
			if ok, _ := x.use(id, at, 1, "192.0.2.1", "ua", nil); !ok {
				t.Fatal("a use right after the fill was not taken")
			}
			slots[id] = at
		}
	}
	if len(slots) != minCapacity {
		t.Errorf("%d keys found room, want %d", len(slots), minCapacity)
	}
	for id := range slots {
		if e, ok := x.found(id); !ok || e.slot != slots[id] {
			t.Fatalf("key %s has lost its entry with its usage in it", id)
		}
	}
}

// A string that a verdict took with it must stay what it was.
func TestTextsSurviveMoves(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(4 * minCapacity)
	type held struct {
		id   ID
		view entryView
	}
	var kept []held
	moves := 0
	for round := range 12 {
		for i, id := range ids {
			before := x.stripeOf(x.setOf(binary.BigEndian.Uint64(id[8:]))).text.Load()
			x.put(indexKey(id, round))
			if x.stripeOf(x.setOf(binary.BigEndian.Uint64(id[8:]))).text.Load() != before {
				moves++
			}
			if e, ok := x.found(id); ok && i%20 == round {
				kept = append(kept, held{id, e})
			}
		}
		for _, id := range ids {
			x.change(id)
		}
	}
	runtime.GC()
	for i := range kept {
		if diff := mixedUp(&kept[i].view, kept[i].id); diff != "" {
			t.Fatalf("texts of %s have become those of %s", kept[i].id, diff)
		}
	}
	if len(kept) < 500 || moves < 500 {
		t.Errorf("only %d texts over %d moves", len(kept), moves)
	}
	t.Logf("%d texts held over %d moves", len(kept), moves)
}
