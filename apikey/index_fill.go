package apikey

import "encoding/binary"

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

// fill remembers what was read of a key from the store after t was taken. It
// returns the slot of the key, or none: the key may have changed meanwhile, or
// the set may be full of keys that are used more.
func (x *index) fill(t ticket, e *entryView) slot {
	set := x.setOf(e.low)
	s := x.stripeOf(set)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.closed || t.changes != s.changes.Load() || e.low == 0 { // no id that the gateway made
		return slot{}
	}
	entry, found := x.locate(set, e.high, e.low)
	if !found {
		if entry, found = x.makeRoom(set, e.low); !found {
			return slot{}
		}
	} else if state := x.word(entry, wordState).Load(); state&stateStale == 0 {
		return slot{uint32(entry) + 1, uint16(state >> 16)} // another was quicker
	}
	return x.write(entry, e)
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
	for n := range uint64(ways) {
		entry = x.place(set, low, n)
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

// write fills an entry. The stripe must be held.
func (x *index) write(entry uint64, e *entryView) slot {
	text := x.keepText(entry/ways, e) // may move the texts of all entries, so it comes first
	life := x.word(entry, wordCount).Load() >> lifeShift
	state := life<<16 | uint64(e.digest.algorithm)<<8 | e.state
	fresh := x.tags[entry].Load() != e.low || x.word(entry, wordHigh).Load() != e.high

	sequence := x.word(entry, wordSequence)
	sequence.Add(1)
	x.word(entry, wordHigh).Store(e.high)
	for i := range 4 {
		x.word(entry, wordDigest+i).Store(binary.BigEndian.Uint64(e.digest.sum[i*8:]))
	}
	x.word(entry, wordPepper).Store(uint64(e.digest.pepper))
	x.word(entry, wordExpires).Store(uint64(e.expires))
	x.word(entry, wordState).Store(state)
	x.word(entry, wordText).Store(text)
	if fresh {
		x.word(entry, wordClient).Store(0)
		x.word(entry, wordWaits).Store(0)
	}
	x.tags[entry].Store(e.low)
	sequence.Add(1)
	return slot{uint32(entry) + 1, uint16(life)}
}
