package apikey

// ghosts are marks of the last keys that found no room in a set, or lost it.
type ghosts [ways]uint16

// makeRoom returns an entry of the set for a key that has none. When all of its
// rivals were hit lately, a key must come twice before one gives way: reading
// through all keys once does not drive out those in use.
func (x *index) makeRoom(set, low uint64) (entry uint64, ok bool) {
	for n := range uint64(ways) {
		if entry = x.place(set, low, n); x.tags[entry].Load() == 0 {
			x.stripeOf(set).entries++
			return entry, true
		}
	}
	cold, ok := x.coldest(set, low)
	if !ok {
		x.hurry(set, low)
		return 0, false
	}
	least := x.word(cold, wordHeat).Load()
	returned := x.returned(set, low)
	if !returned && least > 0 {
		x.note(set, low)
		return 0, false
	}
	if !x.retire(cold) {
		return 0, false
	}
	x.note(set, x.tags[cold].Load())
	for n := uint64(0); least > 0 && n < rivals; n++ {
		heat := x.word(x.place(set, low, n), wordHeat)
		heat.Store(heat.Load() - min(heat.Load(), least))
	}
	if returned { // it is in use itself, and must not be the next to go
		x.word(cold, wordHeat).Store(1)
	}
	return cold, true
}

// coldest returns the rival of a key that was hit least. Those with usage to flush
// are passed over. It looks at no more entries than it must: each lies in lines of
// its own, which are in no cache of the processor.
func (x *index) coldest(set, low uint64) (coldest uint64, ok bool) {
	least := uint64(0)
	for n := range uint64(rivals) {
		entry := x.place(set, low, n)
		if x.word(entry, wordCount).Load()&lowMask != 0 || x.clients[entry].Load() != nil {
			continue
		}
		if heat := x.word(entry, wordHeat).Load(); !ok || heat < least {
			coldest, least, ok = entry, heat, true
			if heat == 0 {
				break
			}
		}
	}
	return coldest, ok
}

// hurry has the usage of one rival of a key flushed, so that the key finds room there
// the next time. All others may wait: it would cost more to write theirs more often
// than to read a key that has no room from the store.
func (x *index) hurry(set, low uint64) {
	coldest, least := uint64(0), uint64(maxHeat+1)
	for n := range uint64(rivals) {
		entry := x.place(set, low, n)
		if x.clients[entry].Load() != nil || x.word(entry, wordWaits).Load() == 0 {
			return // it is written next anyway
		}
		if heat := x.word(entry, wordHeat).Load(); heat < least {
			coldest, least = entry, heat
		}
	}
	x.word(coldest, wordWaits).Store(0)
}

// The mark of a key is of bits that do not choose its set; 0 is none.
func markOf(low uint64) uint16 { return max(uint16(low>>32), 1) }

// returned reports whether a key was in this set lately, and forgets it.
func (x *index) returned(set, low uint64) bool {
	marks := &x.ghosts[set]
	for i, mark := range marks {
		if mark == markOf(low) {
			marks[i] = 0
			return true
		}
	}
	return false
}

func (x *index) note(set, low uint64) {
	marks := &x.ghosts[set]
	copy(marks[1:], marks[:])
	marks[0] = markOf(low)
}

// retire ends the life of an entry, unless a use was recorded in it meanwhile.
func (x *index) retire(entry uint64) bool {
	count := x.word(entry, wordCount)
	old := count.Load()
	next := (old>>lifeShift + 1) & lifeMask
	if old&lowMask != 0 || !count.CompareAndSwap(old, next<<lifeShift) {
		return false
	}
	x.word(entry, wordUsed).Store(next << lifeShift)
	return true
}
