package apikey

import (
	"encoding/binary"
	"unsafe"
)

// find copies what the index knows of a key. It reports false when it knows
// nothing that is sure to be current.
func (x *index) find(id ID, e *entryView) bool {
	high, low := halves(id)
	set := x.setOf(low)
	s := x.stripeOf(set)
	for n := range uint64(ways) {
		entry := x.place(set, low, n)
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
