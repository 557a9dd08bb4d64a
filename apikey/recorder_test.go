package apikey

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// spilling is a recorder that has no room in the index.
func spilling() *recorder {
	return newRecorder(newIndex(minCapacity), time.Minute, time.Second)
}

func TestMemoryForUsageIsBounded(t *testing.T) {
	u := spilling()
	use := func(n int) {
		v := Verdict{KeyID: ID{12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}, at: 1}
		u.record(&v, "192.0.2.1", "ua", nil)
	}
	for n := range maxSpill + 1000 {
		use(n)
	}
	use(0) // a key that is among them is counted on
	if len(u.spill) != maxSpill || u.size() != maxSpill {
		t.Errorf("%d keys are kept, want %d", u.size(), maxSpill)
	}
	if dropped := u.takeDropped(); dropped != 1000 {
		t.Errorf("%d uses were dropped, want 1000", dropped)
	}
	if u.takeDropped() != 0 {
		t.Error("uses were dropped twice")
	}
	if p := u.pending(ID{}); len(p) != 1 || p[0].count != 2 {
		t.Errorf("the first key has %+v", p)
	}
}

var errLost = errors.New("lost")

// tables is the least that a flush needs of a store.
type tables map[string][]byte

func (s tables) Get(t Table, key []byte) ([]byte, error) { return s[t.String()+string(key)], nil }
func (s tables) Put(t Table, key, value []byte) error {
	s[t.String()+string(key)] = bytes.Clone(value)
	return nil
}
func (s tables) Delete(t Table, key []byte) error { delete(s, t.String()+string(key)); return nil }

func (s tables) Scan(t Table, within Range, yield func(key, value []byte) bool) error {
	var keys []string
	for name := range s {
		key, ok := strings.CutPrefix(name, t.String())
		if ok && key >= string(within.From) && (len(within.To) == 0 || key < string(within.To)) {
			keys = append(keys, key)
		}
	}
	if slices.Sort(keys); within.Reverse {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		if !yield([]byte(key), s[t.String()+key]) {
			break
		}
	}
	return nil
}

func (s tables) View(_ context.Context, fn func(Reader) error) error { return fn(s) }
func (s tables) Update(_ context.Context, fn func(Tx) error) error   { return fn(s) }
func (s tables) Close() error                                        { return nil }

type dropped struct {
	unobserved
	uses int
}

func (d *dropped) UsageDropped(uses int) { d.uses += uses }

func TestObserverIsToldWhatWasDropped(t *testing.T) {
	told := new(dropped)
	k, err := Open(tables{}, Settings{FlushInterval: time.Hour}, Policy{}, told)
	if err != nil {
		t.Fatal(err)
	}
	k.recorder.mu.Lock()
	k.recorder.dropped = 7
	k.recorder.mu.Unlock()
	for range 2 {
		if err := k.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if told.uses != 7 {
		t.Errorf("told of %d uses, want 7", told.uses)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

// What comes to the spill while it is being written must not be taken for
// written.
func TestUseThatComesDuringAFlushIsNotTakenForFlushed(t *testing.T) {
	for name, during := range map[string]func(u *recorder, id ID){
		"a use": func(u *recorder, id ID) { u.keep(newClient(id, 20, "192.0.2.2", "later", nil), 1) },
		"a client that was left behind, without a use": func(u *recorder, id ID) { u.keep(newClient(id, 20, "192.0.2.2", "later", nil), 0) },
	} {
		u, store, id := spilling(), tables{}, ID{15: 1}
		u.keep(newClient(id, 10, "192.0.2.1", "earlier", nil), 1)
		count := uint64(1)
		if name == "a use" {
			count++
		}
		flush := func(meanwhile func(*recorder, ID)) {
			t.Helper()
			if _, err := u.flush(context.Background(), 50, store.View, func(_ context.Context, fn func(Tx) error, _ func()) error {
				err := fn(store)
				meanwhile(u, id)
				return err
			}, true); err != nil {
				t.Fatal(err)
			}
		}
		flush(during)
		if u.size() != 1 {
			t.Errorf("%s: what came meanwhile is gone", name)
		}
		flush(func(*recorder, ID) {})
		got, err := usageOf(store, id)
		if err != nil || got.Count != count || got.LastUsedUserAgent != "later" || got.LastUsedIP.String() != "192.0.2.2" || got.LastUsedAt.UnixMilli() != 20 {
			t.Errorf("%s: the store has %+v, %v", name, got, err)
		}
		if u.size() != 0 {
			t.Errorf("%s: something still waits", name)
		}
	}
}

// A recorder that was held up between its parts must not leave its client to
// the key that has the entry now.
func TestClientLeftInAnotherKeysEntryReachesItsOwn(t *testing.T) {
	x := newIndex(minCapacity)
	u := newRecorder(x, time.Minute, time.Second)
	ids := indexIDs(2)
	at := x.put(indexKey(ids[0], 0))
	late := newClient(ids[1], 30, "192.0.2.9", "late", nil)
	left := func() {
		x.clients[at.number-1].Store(late)
		x.dirty[(at.number-1)/64].Or(1 << ((at.number - 1) % 64))
	}
	store := tables{}
	flush := func() {
		t.Helper()
		if _, err := u.flush(context.Background(), 50, store.View, func(_ context.Context, fn func(Tx) error, _ func()) error { return fn(store) }, true); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, id ID, agent string, count uint64) {
		t.Helper()
		got, err := usageOf(store, id)
		if err != nil || got.LastUsedUserAgent != agent || got.Count != count {
			t.Errorf("%s: the key has %+v, %v, want %s and %d", when, got, err, agent, count)
		}
	}
	v := Verdict{KeyID: ids[0], entry: at, at: 40}

	left()
	flush()
	want("collected by a flush", ids[1], "late", 0)
	want("collected by a flush", ids[0], "", 0)

	clear(store)
	left()
	u.record(&v, "192.0.2.1", "own", nil)
	flush()
	want("replaced by a use", ids[1], "late", 0)
	want("replaced by a use", ids[0], "own", 1)

	left()
	if p := u.pending(ids[0]); len(p) != 0 {
		t.Errorf("the key is said to have been used by another's client: %+v", p)
	}
}

// A verdict may outlive the entry that it came from.
func TestUseOfAnEntryThatWasGivenAwayIsCountedForItsOwnKey(t *testing.T) {
	x := newIndex(minCapacity)
	u := newRecorder(x, time.Minute, time.Second)
	set := idsOfSet(x, 0, 100)
	slots := make(map[ID]slot)
	for _, id := range set {
		slots[id] = x.put(indexKey(id, 0))
	}
	for _, id := range set {
		v := Verdict{KeyID: id, entry: slots[id], at: 5}
		u.record(&v, "192.0.2.1", id.String(), nil)
	}
	if len(u.spill) < len(set)-ways {
		t.Errorf("%d of %d keys are in the spill, want all but %d", len(u.spill), len(set), ways)
	}
	for _, id := range set {
		p := u.pending(id)
		if len(p) != 1 || p[0].count != 1 || p[0].used != 5 || p[0].client == nil || p[0].client.userAgent != id.String() {
			t.Fatalf("key %s has %+v", id, p)
		}
	}
}

func TestFlushThatFailsIsTriedAgainWithTheSameUses(t *testing.T) {
	x := newIndex(minCapacity)
	u := newRecorder(x, time.Minute, time.Second)
	for i, id := range indexIDs(2500) { // three slices, and a spill
		at := x.put(indexKey(id, 0))
		v := Verdict{KeyID: id, entry: at, at: int64(i)}
		u.record(&v, "192.0.2.1", "ua", nil)
	}
	store := tables{}
	slices := 0
	flush := func(failFrom int) (int, error) {
		slices = 0
		return u.flush(context.Background(), 50, store.View, func(_ context.Context, fn func(Tx) error, _ func()) error {
			if slices++; slices > failFrom {
				return errLost
			}
			return fn(store)
		}, true)
	}
	keys, err := flush(1)
	if !errors.Is(err, errLost) || keys != flushSlice || slices != 2 {
		t.Errorf("%d keys in %d slices, %v; want the first slice, and no other after one that failed", keys, slices, err)
	}
	if waiting := u.size(); waiting != 2500-flushSlice {
		t.Errorf("%d keys wait", waiting)
	}
	if keys, err = flush(9); err != nil || keys != 2500-flushSlice || u.size() != 0 {
		t.Errorf("%d keys, %v, %d wait", keys, err, u.size())
	}
	for _, id := range indexIDs(2500) {
		if got, err := usageOf(store, id); err != nil || got.Count != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
	}
}

// In a set whose every entry waits for its usage to be flushed, a key finds room after
// the next flush, which puts the usage of one of the others off, and writes none.
func TestFlushMakesRoomInACrowdedSet(t *testing.T) {
	x := newIndex(minCapacity)
	u := newRecorder(x, time.Minute, time.Second)
	crowded, other := idsOfSet(x, 0, ways+1), idsOfSet(x, 1, ways)
	use := func(id ID) slot {
		at := x.put(indexKey(id, 0))
		if v := (Verdict{KeyID: id, entry: at, at: 50}); at != (slot{}) {
			u.record(&v, "192.0.2.1", "ua", nil)
		}
		return at
	}
	store := tables{}
	flush := func(when string, want int) {
		t.Helper()
		keys, err := u.flush(context.Background(), 50, store.View, func(_ context.Context, fn func(Tx) error, _ func()) error { return fn(store) }, false)
		if err != nil || keys != want {
			t.Errorf("%s: %d keys written, want %d; %v", when, keys, want, err)
		}
	}
	in, late := slices.Concat(crowded[:ways], other), crowded[ways]
	for _, id := range in {
		use(id)
	}
	flush("the first use of each", len(in))
	for _, id := range in {
		use(id)
	}
	flush("a new time alone", 0)
	for range 5 {
		if use(late) != (slot{}) {
			t.Error("a key found room where every entry has usage that was not flushed")
		}
	}
	flush("with a key that found no room", 0)
	if use(late) == (slot{}) {
		t.Error("a key that came again found no room after the flush")
	}
	if u.size() != len(in)+1 || len(u.backlog.uses) != 1 {
		t.Errorf("%d keys wait, %d of them put off; want all, and the one that took the place of one", u.size(), len(u.backlog.uses))
	}
	flush("the first use of that key", 1)
}

// idsOfSet returns ids that share a set of the index.
func idsOfSet(x *index, set uint64, n int) (ids []ID) {
	for _, id := range indexIDs(2 * n * int(x.setMask+1)) {
		if _, low := halves(id); x.setOf(low) == set && len(ids) < n {
			ids = append(ids, id)
		}
	}
	return ids
}

// A jump ahead that was undone must not keep the usage back until the clock is
// there again.
func TestUsageIsWrittenAfterTheClockJumpedAndCameBack(t *testing.T) {
	x := newIndex(minCapacity)
	u := newRecorder(x, time.Minute, time.Second)
	id := indexIDs(1)[0]
	v := Verdict{KeyID: id, entry: x.put(indexKey(id, 0))}
	store := tables{}
	for _, now := range []int64{1_000_000_000, 1000} {
		v.at = now
		u.record(&v, "192.0.2.1", "ua", nil)
		keys, err := u.flush(context.Background(), now, store.View, func(_ context.Context, fn func(Tx) error, _ func()) error { return fn(store) }, false)
		if err != nil || keys != 1 {
			t.Errorf("at %d: %d keys written, %v", now, keys, err)
		}
	}
}

func TestEntryWithAUseInItDoesNotRetire(t *testing.T) {
	x := newIndex(minCapacity)
	id := indexIDs(1)[0]
	at := x.put(indexKey(id, 0))
	entry := uint64(at.number - 1)
	if ok, _ := x.use(id, at, 1, "", "", nil); !ok || x.retire(entry) {
		t.Error("an entry ended its life with a use in it")
	}
	x.flushed(&x.collect(nil, entry)[0])
	if !x.retire(entry) {
		t.Error("an entry whose usage was flushed does not end its life")
	}
	if ok, _ := x.use(id, at, 1, "", "", nil); ok {
		t.Error("a use of an entry's former life was taken")
	}
}
