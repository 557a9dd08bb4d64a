package apikey

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// blocks returns what every block of a store holds, and fails when one has keys of
// another, or is larger than it needs to be.
func blocks(t *testing.T, store tables) map[ID][]keyUsage {
	t.Helper()
	all := make(map[ID][]keyUsage)
	var last ID
	_ = store.Scan(TableUsage, Range{}, func(key, value []byte) bool {
		usages, err := readBlock(ID(key), value)
		if err != nil {
			t.Fatalf("%x: %v", key, err)
		}
		if usages[0].id.compare(last) <= 0 {
			t.Fatalf("%x has the usage of keys that belong to the block before", key)
		}
		last = usages[len(usages)-1].id
		if len(value) > 2*maxUsageBlock && len(usages) > 1 { // it is split by keys, not by bytes
			t.Errorf("a block of %d keys has %d bytes", len(usages), len(value))
		}
		all[ID(key)] = usages
		return true
	})
	return all
}

// used is a use that waits for a flush.
func used(id ID, at int64, count uint64, agent string) pendingUse {
	return pendingUse{id: id, used: at, count: count, client: newClient(id, at, "192.0.2.1", agent, nil)}
}

func flushed(t *testing.T, store Tx, uses ...pendingUse) {
	t.Helper()
	var w usageWriter
	m := newMoves()
	slices.SortStableFunc(uses, func(a, b pendingUse) int { return a.id.compare(b.id) })
	if err := w.write(store, uses, &m, 0); err != nil {
		t.Fatal(err)
	}
}

// Uses of many keys, in flushes of all sizes, with user agents that come and go, and
// keys that are removed: what is read is what was used.
func TestBlocksHoldTheUsageOfEveryKeyThroughAnyHistory(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	store, want := tables{}, make(map[ID]Usage)
	ids := indexIDs(3000)
	for round := range 400 {
		var uses []pendingUse
		from := random.IntN(len(ids))
		spread := []int{1, 10, 100, 1000, 3000}[random.IntN(5)]
		for range random.IntN(100) {
			id := ids[(from+random.IntN(spread))%len(ids)]
			if slices.ContainsFunc(uses, func(p pendingUse) bool { return p.id == id }) {
				continue
			}
			agent := strings.Repeat("agent", random.IntN(8)*random.IntN(8)) + fmt.Sprint(random.IntN(5))
			if random.IntN(5) == 0 {
				agent += fmt.Sprint(" of its own ", random.Uint64())
			}
			p := used(id, int64(round+1), random.Uint64N(3), agent)
			if random.IntN(4) == 0 {
				p.client = nil
			}
			uses = append(uses, p)
			u := want[id]
			p.addTo(&u)
			want[id] = u
		}
		flushed(t, store, uses...)
		for range random.IntN(20) {
			id := ids[(from+random.IntN(spread))%len(ids)]
			if err := removeUsage(store, id); err != nil {
				t.Fatal(err)
			}
			delete(want, id)
		}
		if round%20 != 0 {
			continue
		}
		held := 0
		for _, usages := range blocks(t, store) {
			held += len(usages)
		}
		if held != len(want) {
			t.Fatalf("round %d: the blocks hold %d keys, want %d", round, held, len(want))
		}
		for _, id := range ids {
			if got, err := usageOf(store, id); err != nil || got != want[id] {
				t.Fatalf("round %d, %s: %+v, %v; want %+v", round, id, got, err, want[id])
			}
		}
	}
	all := blocks(t, store)
	if len(all) < 50 || len(all) > len(want)/2 {
		t.Errorf("%d keys stand in %d blocks", len(want), len(all))
	}
	t.Logf("%d keys in %d blocks", len(want), len(all))
	for id := range want {
		if err := removeUsage(store, id); err != nil {
			t.Fatal(err)
		}
	}
	if len(store) > 0 {
		t.Errorf("%d blocks without a key", len(store))
	}
}

func TestUsageOfOneKeyFromAnEarlierVersionIsReadAndGoesOn(t *testing.T) {
	store := tables{}
	single := goldenUsages["of one key, IPv4"]
	before, after := goldenID, goldenID
	before[15]--
	after[15]++
	if err := store.Put(TableUsage, goldenID[:], unhex(single.stored)); err != nil {
		t.Fatal(err)
	}
	if got, err := usageOf(store, goldenID); err != nil || got != single.usages[0].Usage {
		t.Errorf("%+v, %v", got, err)
	}
	flushed(t, store, used(before, 1, 1, "before"), used(goldenID, 2_000_000_000_000, 1, "later"), used(after, 3, 1, "after"))
	for id, want := range map[ID]Usage{
		before:   {time.UnixMilli(1).UTC(), netip.MustParseAddr("192.0.2.1"), "before", 1},
		goldenID: {time.UnixMilli(2_000_000_000_000).UTC(), netip.MustParseAddr("192.0.2.1"), "later", 301},
		after:    {time.UnixMilli(3).UTC(), netip.MustParseAddr("192.0.2.1"), "after", 1},
	} {
		if got, err := usageOf(store, id); err != nil || got != want {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	blocks(t, store)
}

// Who sends another user agent with each request must not fill the block that he
// shares with others.
func TestUserAgentsThatNobodyHasAnyMoreLeaveTheBlock(t *testing.T) {
	store, ids := tables{}, indexIDs(20)
	for _, id := range ids {
		flushed(t, store, used(id, 1, 1, "steady"))
	}
	for n := range 1000 {
		flushed(t, store, used(ids[7], int64(n), 1, fmt.Sprint(n, strings.Repeat("x", 200))))
	}
	if all := blocks(t, store); len(all) > 3 {
		t.Errorf("20 keys stand in %d blocks", len(all))
	}
	if got, err := usageOf(store, ids[8]); err != nil || got.LastUsedUserAgent != "steady" {
		t.Errorf("a neighbour has %+v, %v", got, err)
	}
}

// What is known of who used a key goes with the key.
func TestRemovedUsageLeavesNothingOfItsClientInTheBlock(t *testing.T) {
	store, ids := tables{}, indexIDs(2)
	flushed(t, store, used(ids[0], 1, 1, "steady"), used(ids[1], 1, 1, "of a person"))
	if err := removeUsage(store, ids[1]); err != nil {
		t.Fatal(err)
	}
	for key, value := range store {
		if strings.Contains(string(value), "of a person") {
			t.Errorf("%x: %q", key, value)
		}
	}
	if got, err := usageOf(store, ids[0]); err != nil || got.LastUsedUserAgent != "steady" {
		t.Errorf("the other key: %+v, %v", got, err)
	}
}

func TestDamagedBlockStartsOverAndCostsNoOther(t *testing.T) {
	store, ids := tables{}, indexIDs(200)
	for _, id := range ids {
		flushed(t, store, used(id, 1, 1, "ua"))
	}
	all := blocks(t, store)
	var damaged ID
	for damaged = range all {
		break
	}
	store[TableUsage.String()+string(damaged[:])][5] ^= 1
	lost := all[damaged]
	if _, err := usageOf(store, lost[0].id); !errors.Is(err, errDamaged) {
		t.Errorf("reading a damaged block: %v", err)
	}
	if err := removeUsage(store, lost[0].id); err != nil {
		t.Errorf("removing a key of a damaged block: %v", err)
	}
	flushed(t, store, used(lost[0].id, 2, 1, "again"))
	for _, id := range ids {
		want := uint64(1)
		if slices.ContainsFunc(lost[1:], func(u keyUsage) bool { return u.id == id }) {
			want = 0
		}
		if got, err := usageOf(store, id); err != nil || got.Count != want {
			t.Errorf("%s: %+v, %v; want %d uses", id, got, err, want)
		}
	}
}

func TestCheckFindsUsageThatStandsInTheWrongBlock(t *testing.T) {
	store, ids := tables{}, indexIDs(3)
	for _, id := range ids[:2] {
		flushed(t, store, used(id, 1, 1, "ua"))
	}
	check := func() (problems []string) {
		t.Helper()
		if _, err := CheckStore(t.Context(), store, func(int) {}, func(f Fault) {
			if f.Table == TableUsage {
				problems = append(problems, f.String())
			}
		}); err != nil {
			t.Fatal(err)
		}
		return problems
	}
	if problems := check(); problems != nil {
		t.Errorf("a good store: %q", problems)
	}
	store[TableUsage.String()+string(ids[1][:])] = storedBlock(ids[1], []keyUsage{{id: ids[1]}, {id: ids[2]}})
	if problems := check(); len(problems) != 1 || !strings.Contains(problems[0], "belong to the next") || !strings.Contains(problems[0], ids[0].String()) {
		t.Errorf("a key in two blocks: %q", problems)
	}
}
