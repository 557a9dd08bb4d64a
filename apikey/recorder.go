package apikey

import (
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// flushSlice bounds the keys whose usage is written in one transaction, and so
// how long a change of a key can wait behind it.
const flushSlice = 1000

// maxSpill bounds the spill while the store takes nothing.
const maxSpill = 1 << 16

// recorder brings usage from the index and the spill to the store.
type recorder struct {
	index      *index
	resolution time.Duration
	moves      moves
	writer     usageWriter

	unsettled *usageSlice // of the flush before; its outcome is not known

	mu      sync.Mutex
	spill   map[ID]*pendingUse
	dropped int
}

// record notes a use. Memory is allocated only when the client has changed. Of a token
// with one of the prefixes in the user agent nothing else is kept.
func (u *recorder) record(v *Verdict, address, userAgent string, prefixes []string) {
	ok, displaced := u.index.use(v.KeyID, v.entry, v.at, address, userAgent, prefixes)
	if displaced != nil {
		u.keep(displaced, 0)
	}
	if !ok {
		u.keep(newClient(v.KeyID, v.at, address, userAgent, prefixes), 1)
	}
}

// keep adds uses from a client to the spill.
func (u *recorder) keep(c *client, uses uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.spill[c.id]
	if p == nil {
		if len(u.spill) >= maxSpill {
			u.dropped += int(uses)
			return
		}
		p = &pendingUse{id: c.id}
		u.spill[c.id] = p
	}
	p.count += uses
	if c.at >= p.used {
		p.used, p.client = c.at, c
	}
}

// addTo brings a usage from the store up to date with what was collected.
func (p *pendingUse) addTo(stored *Usage) {
	stored.Count += p.count
	if used := fromMillis(p.used); !used.Before(stored.LastUsedAt) {
		stored.LastUsedAt = used
		if p.client != nil {
			stored.LastUsedIP, stored.LastUsedUserAgent = p.client.address, p.client.userAgent
		}
	}
}

// pending returns what is not yet in the store of a key's usage.
func (u *recorder) pending(id ID) []pendingUse {
	uses := u.index.pending(id)
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.spill[id]; p != nil {
		uses = append(uses, *p)
	}
	return uses
}

func (u *recorder) takeDropped() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	dropped := u.dropped
	u.dropped = 0
	return dropped
}

// size returns how many keys have usage to flush.
func (u *recorder) size() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.index.dirtyEntries() + len(u.spill)
}

func (x *index) dirtyEntries() (n int) {
	for i := range x.dirty {
		n += bits.OnesCount64(x.dirty[i].Load())
	}
	return n
}

// take returns what is to be flushed now of the entries. Uses that only moved the time
// wait until the last write of their key is as old as the resolution, unless all is
// asked for.
func (u *recorder) take(now int64, all bool) []pendingUse {
	x := u.index
	all = x.crowded.Swap(false) || all
	uses := make([]pendingUse, 0, x.dirtyEntries())
	for i := range x.dirty {
		word := x.dirty[i].Load()
		if word == 0 {
			continue
		}
		// Cleared before the entries are read: a use that comes now sets its
		// bit again and is seen the next time.
		x.dirty[i].And(^word)
		var later uint64
		for ; word != 0; word &= word - 1 {
			entry := uint64(i*64 + bits.TrailingZeros64(word))
			if !all && x.mayWait(entry, now, u.resolution) {
				later |= word & -word
				continue
			}
			s := x.stripeOf(entry / ways)
			s.mu.Lock()
			uses = x.collect(uses, entry)
			s.mu.Unlock()
		}
		if later != 0 {
			x.dirty[i].Or(later)
		}
	}
	return uses
}

// mayWait reports whether an entry has collected uses, and nothing that is worth a
// write now. All keys that are in use come by here at each flush.
func (x *index) mayWait(entry uint64, now int64, resolution time.Duration) bool {
	age := now - int64(x.word(entry, wordSaved).Load())
	return age >= 0 && age < resolution.Milliseconds() && // else the clock jumped and came back
		x.word(entry, wordCount).Load()&lowMask != 0 && x.clients[entry].Load() == nil
}

// done takes flushed usage out of the entry where it was collected, or, when it could
// not be written, sees to it that it comes again.
func (u *recorder) done(p *pendingUse, now int64, err error) {
	if err != nil {
		u.index.dirty[p.entry/64].Or(1 << (p.entry % 64))
		return
	}
	u.index.flushed(p, now)
}

// doneSpilled takes flushed usage out of the spill.
func (u *recorder) doneSpilled(p *pendingUse, _ int64, err error) {
	if err != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if kept := u.spill[p.id]; kept.count == p.count && kept.client == p.client {
		delete(u.spill, p.id)
	} else {
		kept.count -= p.count
	}
}

// spilled returns a copy of the spill.
func (u *recorder) spilled() (uses []pendingUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.spill {
		uses = append(uses, *p)
	}
	return uses
}

// usageSlice is usage that is written in one transaction.
type usageSlice struct {
	uses []pendingUse
	done func(p *pendingUse, now int64, err error)
}

// lost notes that the last run of the write has left what it leaves, or nothing.
func (s *usageSlice) lost() {
	for i := range s.uses {
		s.uses[i].wrote = s.uses[i].leaves
	}
}

// usageUpdate runs a write of usage, and calls lost after each run whose outcome is
// not known.
type usageUpdate func(ctx context.Context, fn func(Tx) error, lost func()) error

// flush writes collected usage to the store, sorted, a slice at a time.
func (u *recorder) flush(ctx context.Context, now int64, update usageUpdate, all bool) (keys int, err error) {
	write := func(s *usageSlice) {
		if err == nil {
			if err = update(ctx, func(tx Tx) error { return u.writer.write(tx, s.uses, &u.moves, now) }, s.lost); errors.Is(err, ErrOutcomeUnknown) {
				u.unsettled = s
			}
		}
		for i := range s.uses {
			s.done(&s.uses[i], now, err)
			if err == nil {
				u.moves.keep(s.uses[i].moved, now)
			}
		}
		if err == nil {
			keys += len(s.uses)
		}
	}
	// Written or not, these uses are still where they were collected. What is
	// collected from there is counted twice until they are settled.
	if s := u.unsettled; s != nil {
		if write(s); err != nil {
			return keys, err
		}
		u.unsettled = nil
	}
	writeAll := func(uses []pendingUse, done func(p *pendingUse, now int64, err error)) {
		slices.SortFunc(uses, func(a, b pendingUse) int { return a.id.compare(b.id) })
		for part := range slices.Chunk(uses, flushSlice) {
			write(&usageSlice{part, done})
		}
	}
	writeAll(u.take(now, all), u.done)
	writeAll(u.spilled(), u.doneSpilled)
	return keys, err
}
