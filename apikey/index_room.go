package apikey

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
	if x.word(cold, wordHeat).Load() > 0 {
		if !x.returned(set, low) {
			return 0, false
		}
		for entry = first; entry < first+ways; entry++ {
			if heat := x.word(entry, wordHeat); heat.Load() > 0 {
				heat.Store(heat.Load() - 1)
			}
		}
	}
	return cold, x.retire(cold)
}

// coldest returns the entry of the set from first on that was hit least. Those
// with usage to flush are passed over.
func (x *index) coldest(first uint64) (coldest uint64, ok bool) {
	least := uint64(0)
	for entry := first; entry < first+ways; entry++ {
		if x.word(entry, wordCount).Load()&lowMask != 0 || x.clients[entry].Load() != nil {
			continue
		}
		if heat := x.word(entry, wordHeat).Load(); !ok || heat < least {
			coldest, least, ok = entry, heat, true
		}
	}
	return coldest, ok
}

// returned reports whether a key was turned away from this set lately, and
// notes that it was here.
func (x *index) returned(set, low uint64) bool {
	mark := max(low>>48&0xff, 1) // of bits that do not choose the set; 0 is "none"
	ghosts := x.ghosts[set]
	for shift := 0; shift < 64; shift += 8 {
		if ghosts>>shift&0xff == mark {
			x.ghosts[set] = ghosts &^ (0xff << shift)
			return true
		}
	}
	x.ghosts[set] = ghosts<<8 | mark
	return false
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
