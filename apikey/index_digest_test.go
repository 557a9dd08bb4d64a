package apikey

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestEveryForeignKeyOfTheIndexIsFoundByItsDigest(t *testing.T) {
	x := newIndex(minCapacity)
	for _, id := range indexIDs(3 * minCapacity) { // more than there is room for
		r := indexKey(id, 0)
		x.keepDigest(&r.digest, x.put(r))
	}
	held := 0
	for _, id := range indexIDs(3 * minCapacity) {
		r := indexKey(id, 0)
		found, e, ok := x.findDigest(&r.digest)
		if ok && (found != id || mixedUp(&e, id) != "") {
			t.Fatalf("%s for %s", found, id)
		}
		if holds := x.find(id, &e); ok != holds {
			t.Errorf("%s: found %t, in the index %t", id, ok, holds)
		}
		if ok {
			held++
		}
		if x.change(id); ok {
			if _, _, ok := x.findDigest(&r.digest); ok {
				t.Errorf("%s is found after it has changed", id)
			}
		}
	}
	if held < minCapacity/2 {
		t.Errorf("only %d keys are held", held)
	}
}

// Words of the table may lead anywhere: nobody is taken for another.
func TestDigestIsFoundInItsOwnEntryOnly(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(2000)
	for _, id := range ids {
		x.put(indexKey(id, 0))
	}
	for i := range x.digests {
		x.digests[i].Store(rand.Uint64()<<32 | (1 + rand.Uint64N(minCapacity)))
	}
	for _, id := range ids {
		stranger := indexKey(id, 1).digest
		first, mark := x.rowsOf(&stranger)
		for w := range uint64(digestWays) { // as if bits were the same by chance
			x.digests[first+w].Store(mark<<32 | (1 + rand.Uint64N(minCapacity)))
		}
		if found, _, ok := x.findDigest(&stranger); ok {
			t.Errorf("a stranger is taken for %s", found)
		}
	}
}

func TestDigestsAreKeptAndFoundAtOnce(t *testing.T) {
	x := newIndex(minCapacity)
	ids := indexIDs(2 * minCapacity)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20_000 {
				id := ids[rand.IntN(len(ids))]
				r := indexKey(id, 0)
				switch found, e, ok := x.findDigest(&r.digest); {
				case !ok:
					x.keepDigest(&r.digest, x.put(r))
				case found != id || mixedUp(&e, id) != "":
					t.Errorf("%s for %s", found, id)
					return
				}
			}
		})
	}
	wg.Wait()
}
