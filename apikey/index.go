package apikey

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// index holds what a check needs of the keys that are in use, so that the store
// is asked once per key and not once per request.
//
// It is a set-associative table of fixed size without pointers into it: an id
// chooses a set, and a set has sixteen entries. Readers take no lock. They read an
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

	// crowded is set when a key found no room because every entry of its set
	// waits for its usage to be flushed.
	crowded atomic.Bool
}

const (
	ways        = 16
	stripeCount = 256
	// minCapacity gives every stripe a set.
	minCapacity = stripeCount * ways
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
	wordSaved  // when its usage was last written, in Unix milliseconds
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

func (x *index) stripeOf(set uint64) *stripe { return &x.stripes[set%stripeCount] }

func (x *index) word(entry uint64, word int) *atomic.Uint64 {
	return &x.words[entry*entryWords+uint64(word)]
}

// find copies what the index knows of a key. It reports false when it knows
// nothing that is sure to be current.
func (x *index) find(id ID, e *entryView) bool {
	high, low := halves(id)
	set := x.setOf(low)
	s := x.stripeOf(set)
	for w := range uint64(ways) {
		entry := set*ways + w
		if low == 0 || x.tags[entry].Load() != low {
			continue
		}
		if x.read(entry, e) && e.high == high && e.low == low {
			if e.state&stateStale != 0 || x.closed.Load() {
				break
			}
			x.hit(entry)
			return true
		}
	}
	s.misses.Add(1)
	return false
}

func (x *index) hit(entry uint64) {
	if heat := x.word(entry, wordHeat); heat.Load() < maxHeat {
		heat.Add(1) // may pass the bound in a race, which does no harm
	}
	x.stripeOf(entry / ways).hits.Add(1)
}

// entryView is a consistent copy of an entry.
type entryView struct {
	slot                slot
	high, low           uint64
	digest              digest
	expires             int64
	state               uint64
	organization, owner string
}

// read copies an entry, or reports false when no key was ever in it. It waits
// for a writer only when it keeps meeting one: a key that is in the index must
// not be looked for in a store that may be gone.
func (x *index) read(entry uint64, e *entryView) bool {
	for range 4 {
		if x.tryRead(entry, e) {
			return true
		}
	}
	s := x.stripeOf(entry / ways)
	s.mu.Lock()
	defer s.mu.Unlock()
	return x.tryRead(entry, e)
}

func (x *index) tryRead(entry uint64, e *entryView) bool {
	words := x.words[entry*entryWords : (entry+1)*entryWords]
	sequence := words[wordSequence].Load()
	if sequence == 0 || sequence&1 != 0 {
		return false
	}
	e.high, e.low = words[wordHigh].Load(), x.tags[entry].Load()
	for i := range 4 {
		binary.BigEndian.PutUint64(e.digest.sum[i*8:], words[wordDigest+i].Load())
	}
	e.expires = int64(words[wordExpires].Load())
	e.state = words[wordState].Load()
	text, pepper := words[wordText].Load(), words[wordPepper].Load()
	block := x.stripeOf(entry / ways).text.Load()
	if words[wordSequence].Load() != sequence {
		return false
	}
	e.digest.algorithm = algorithm(e.state >> 8)
	e.digest.pepper = pepperID(pepper)
	e.slot = slot{uint32(entry) + 1, uint16(e.state >> 16)}
	texts := unsafe.String(&block.bytes[text>>32], textSize(text))
	e.organization, e.owner = texts[:text>>8&0xff], texts[text>>8&0xff:]
	return true
}

// ticket is taken before a key is read from the store, and handed back with
// what was read.
type ticket struct {
	changes uint64
	closed  bool
}

func (x *index) ticket(id ID) ticket {
	_, low := halves(id)
	return ticket{x.stripeOf(x.setOf(low)).changes.Load(), x.closed.Load()}
}

// fill remembers a record that was read from the store after t was taken. It
// returns the slot of the key, or none: the key may have changed meanwhile, or
// the set may be full of keys that are used more.
func (x *index) fill(t ticket, r *record) slot {
	high, low := halves(r.ID)
	set := x.setOf(low)
	s := x.stripeOf(set)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.closed || t.changes != s.changes.Load() || low == 0 { // no id that the gateway made
		return slot{}
	}
	entry, found := x.locate(set, high, low)
	if !found {
		if entry, found = x.makeRoom(set, low); !found {
			return slot{}
		}
	} else if state := x.word(entry, wordState).Load(); state&stateStale == 0 {
		return slot{uint32(entry) + 1, uint16(state >> 16)} // another was quicker
	}
	return x.write(entry, r)
}

// change makes the index forget what it knows of a key that has changed, and
// whatever is being read of it now. It is called when the change is in the
// store, before anybody is told so.
func (x *index) change(id ID) {
	high, low := halves(id)
	set := x.setOf(low)
	s := x.stripeOf(set)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes.Add(1)
	if entry, found := x.locate(set, high, low); found {
		x.makeStale(entry)
	}
}

// close forgets everything and remembers nothing until open.
func (x *index) close() {
	x.closed.Store(true)
	for i := range x.stripes {
		s := &x.stripes[i]
		s.mu.Lock()
		s.changes.Add(1)
		for entry := range x.entriesOf(uint64(i)) {
			x.makeStale(entry)
		}
		s.mu.Unlock()
	}
}

func (x *index) open() { x.closed.Store(false) }

// locate returns the entry of a key. The stripe must be held.
func (x *index) locate(set, high, low uint64) (entry uint64, found bool) {
	for entry = set * ways; entry < (set+1)*ways; entry++ {
		if low != 0 && x.tags[entry].Load() == low && x.word(entry, wordHigh).Load() == high {
			return entry, true
		}
	}
	return 0, false
}

func (x *index) makeStale(entry uint64) {
	sequence := x.word(entry, wordSequence)
	sequence.Add(1)
	state := x.word(entry, wordState)
	state.Store(state.Load() | stateStale)
	sequence.Add(1)
}

// write fills an entry with a record. The stripe must be held.
func (x *index) write(entry uint64, r *record) slot {
	text := x.keepText(entry/ways, r) // may move the texts of all entries, so it comes first
	high, low := halves(r.ID)
	life := x.word(entry, wordCount).Load() >> lifeShift
	state := life<<16 | uint64(r.digest.algorithm)<<8 | r.state()
	fresh := x.tags[entry].Load() != low || x.word(entry, wordHigh).Load() != high

	sequence := x.word(entry, wordSequence)
	sequence.Add(1)
	x.word(entry, wordHigh).Store(high)
	for i := range 4 {
		x.word(entry, wordDigest+i).Store(binary.BigEndian.Uint64(r.digest.sum[i*8:]))
	}
	x.word(entry, wordPepper).Store(uint64(r.digest.pepper))
	x.word(entry, wordExpires).Store(uint64(toMillis(r.ExpiresAt)))
	x.word(entry, wordState).Store(state)
	x.word(entry, wordText).Store(text)
	if fresh {
		x.word(entry, wordClient).Store(0)
		x.word(entry, wordSaved).Store(0)
	}
	x.tags[entry].Store(low)
	sequence.Add(1)
	return slot{uint32(entry) + 1, uint16(life)}
}

// state returns the flags that an entry has of a record.
func (r *record) state() (flags uint64) {
	if r.Scope == ScopeReadWrite {
		flags |= stateReadWrite
	}
	if r.ServiceAccountID != "" {
		flags |= stateServiceAccount
	}
	if r.Revoked() {
		flags |= stateRevoked
	}
	return flags
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
