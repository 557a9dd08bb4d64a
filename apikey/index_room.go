package apikey

// ghosts are marks of the last keys that found no room in a set, or lost it.
type ghosts [ways]uint16

// makeRoom returns an entry of the set for a key that has none. When all of
// them were hit lately, a key must come twice before one gives way: reading
// through all keys once does not drive out those in use.
func (x *index) makeRoom(set, low uint64) (entry uint64, ok bool) {
	first := set * ways
	for entry = first; entry < first+ways; entry++ {
		if x.tags[entry].Load() == 0 {
			x.stripeOf(set).entries++
			return entry, true
		}
	}
	cold, ok := x.coldest(first)
	if !ok {
		x.crowded.Store(true)
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
	for entry = first; least > 0 && entry < first+ways; entry++ {
		heat := x.word(entry, wordHeat)
		heat.Store(heat.Load() - min(heat.Load(), least))
	}
	if returned { // it is in use itself, and must not be the next to go
		x.word(cold, wordHeat).Store(1)
	}
	return cold, true
}

// coldest returns the entry of the set from first on that was hit least. Those
// with usage to flush are passed over. It looks at no more entries than it must:
// each lies in lines of its own, which are in no cache of the processor.
func (x *index) coldest(first uint64) (coldest uint64, ok bool) {
	least := uint64(0)
	for entry := first; entry < first+ways; entry++ {
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
