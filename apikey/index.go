package apikey

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
)

// index holds what a check needs of the keys that are in use, so that the store
// is asked once per key and not once per request.
//
// It is a set-associative table of fixed size without pointers into it: an id
// chooses a set, and where in it to begin. Readers take no lock. They read an
// entry between two looks at its sequence number and start over when it moved.
// Writers hold the lock of the entry's stripe. The collector sees none of it but
// the clients of keys whose usage is to be flushed (see index_memory.go).
//
// An entry also collects the usage of its key (see usage.go), so it is never
// given to another key while a use in it has not reached the store.
type index struct {
	setMask uint64
	tags    []atomic.Uint64 // the low half of the id of each entry, 0: empty
	words   []atomic.Uint64 // entryWords for each entry
	digests []atomic.Uint64 // see index_digest.go
	clients []atomic.Pointer[client]
	dirty   []atomic.Uint64 // a bit for each entry with usage to flush
	ghosts  []ghosts        // of each set
	stripes [stripeCount]stripe

	// closed makes every lookup a miss that is not remembered: changes that
	// others made may not have been heard of.
	closed atomic.Bool
}

const (
	ways        = 64 // some sets get more keys than others: the larger they are, the fewer find no room
	rivals      = 16 // of them, which may have to give way to a new key
	stripeCount = 256
	minCapacity = 64 * ways
)

// The words of an entry, which is two lines of a cache: what a lookup compares,
// and what it does afterwards. The life of an entry counts the keys that held it;
// it is part of the words that collect usage, so that a late recorder cannot
// credit a key that has taken the place of its own.
const (
	wordSequence = iota // odd while it is written
	wordHigh            // key id, whose low half is the tag
	wordDigest          // four words
	_
	_
	_
	wordExpires // Unix milliseconds, 0: never
	wordState   // life<<16 | algorithm<<8 | flags

	wordText   // offset<<32 | organization length<<8 | owner length
	wordUsed   // life<<48 | Unix milliseconds of the last use
	wordCount  // life<<48 | uses that are not in the store
	wordClient // hash of the address and user agent last recorded
	wordWaits  // 1: a use that only moves the time may wait for a sweep
	wordHeat   // how often the entry was hit lately, up to maxHeat
	wordPepper // pepper id of the digest
	_
	entryWords
)

const (
	stateReadWrite = 1 << iota
	stateServiceAccount
	stateRevoked
	stateStale // to be read again from the store
)

const (
	lifeShift = 48
	lifeMask  = 1<<16 - 1
	lowMask   = 1<<lifeShift - 1
	maxHeat   = 3
)

// stripe guards the sets whose number has its low bits.
type stripe struct {
	mu sync.Mutex
	// changes counts the changes of keys in this stripe. A fill that began
	// before a change holds an outdated record and is thrown away.
	changes atomic.Uint64
	text    atomic.Pointer[textBlock]
	entries int
	_       [32]byte

	hits, misses atomic.Uint64
	_            [48]byte // keeps neighbours off the same cache line
}

// slot names an entry in one of its lives.
type slot struct {
	number uint32 // counted from 1; 0: none
	life   uint16
}

func newIndex(capacity int) *index {
	capacity = max(capacity, minCapacity)
	sets := 1 << bits.Len(uint(capacity-1)/ways)
	x := &index{
		setMask: uint64(sets - 1),
		clients: make([]atomic.Pointer[client], sets*ways),
		dirty:   make([]atomic.Uint64, (sets*ways+63)/64),
		ghosts:  make([]ghosts, sets),
	}
	x.tags = wordsOutsideHeap(x, sets*ways)
	x.words = wordsOutsideHeap(x, sets*ways*entryWords)
	x.digests = wordsOutsideHeap(x, sets*ways*digestRows)
	for i := range x.stripes {
		x.stripes[i].text.Store(new(textBlock))
	}
	return x
}

func putHalves(id *ID, high, low uint64) {
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low)
}

func halves(id ID) (high, low uint64) {
	return binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
}

// The low bits of a version 7 id are random and chosen by the gateway, and only
// ids of real keys are ever filled in, so that nobody can aim at one set.
func (x *index) setOf(low uint64) uint64 { return low & x.setMask }

// place returns the n-th entry of its set that a key may have. The first are those
// whose tags share a line of a cache, which the id chooses, too: most keys are found
// there, or in the next.
func (x *index) place(set, low, n uint64) uint64 {
	return set*ways + (low>>48&^7+n)%ways
}

func (x *index) stripeOf(set uint64) *stripe { return &x.stripes[set%stripeCount] }

func (x *index) word(entry uint64, word int) *atomic.Uint64 {
	return &x.words[entry*entryWords+uint64(word)]
}

// entriesOf visits the entries of a stripe that hold a key. The stripe must be
// held.
func (x *index) entriesOf(stripe uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for set := stripe; set <= x.setMask; set += stripeCount {
			for entry := set * ways; entry < (set+1)*ways; entry++ {
				if x.tags[entry].Load() != 0 && !yield(entry) {
					return
				}
			}
		}
	}
}

// entries returns how many keys the index holds.
func (x *index) entries() (n int) {
	for i := range x.stripes {
		s := &x.stripes[i]
		s.mu.Lock()
		n += s.entries
		s.mu.Unlock()
	}
	return n
}

// lookups returns how many lookups found a key, and how many did not.
func (x *index) lookups() (hits, misses uint64) {
	for i := range x.stripes {
		hits += x.stripes[i].hits.Load()
		misses += x.stripes[i].misses.Load()
	}
	return hits, misses
}
