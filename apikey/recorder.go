package apikey

import (
	"bytes"
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

	mu      sync.Mutex
	spill   map[ID]*pendingUse
	dropped int
}

// record notes a use. Memory is allocated only when the client has changed.
func (u *recorder) record(v *Verdict, address, userAgent string) {
	ok, displaced := u.index.use(v.KeyID, v.entry, v.at, address, userAgent)
	if displaced != nil {
		u.keep(displaced, 0)
	}
	if !ok {
		u.keep(newClient(v.KeyID, v.at, address, userAgent), 1)
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
func (u *recorder) size() (keys int) {
	for i := range u.index.dirty {
		keys += bits.OnesCount64(u.index.dirty[i].Load())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return keys + len(u.spill)
}

// take returns what is to be flushed now. Uses that only moved the time wait
// until the last write of their key is as old as the resolution, unless all is
// asked for.
func (u *recorder) take(now int64, all bool) (entries, spilled []pendingUse) {
	x := u.index
	all = x.crowded.Swap(false) || all
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
			entries = x.collect(entries, entry)
			s.mu.Unlock()
		}
		if later != 0 {
			x.dirty[i].Or(later)
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.spill {
		spilled = append(spilled, *p)
	}
	return entries, spilled
}

// mayWait reports whether an entry has collected uses, and nothing that is worth a
// write now. All keys that are in use come by here at each flush.
func (x *index) mayWait(entry uint64, now int64, resolution time.Duration) bool {
	age := now - int64(x.word(entry, wordSaved).Load())
	return age >= 0 && age < resolution.Milliseconds() && // else the clock jumped and came back
		x.word(entry, wordCount).Load()&lowMask != 0 && x.clients[entry].Load() == nil
}

// done takes flushed usage out of where it was collected, or, when it could not
// be written, sees to it that it comes again.
func (u *recorder) done(p *pendingUse, spilled bool, now int64, err error) {
	switch {
	case !spilled && err != nil:
		u.index.dirty[p.entry/64].Or(1 << (p.entry % 64))
	case !spilled:
		u.index.flushed(p, now)
	case err == nil:
		u.mu.Lock()
		defer u.mu.Unlock()
		if kept := u.spill[p.id]; kept.count == p.count && kept.client == p.client {
			delete(u.spill, p.id)
		} else {
			kept.count -= p.count
		}
	}
}

// flush writes collected usage to the store, sorted, a slice at a time.
func (u *recorder) flush(ctx context.Context, now int64, update func(context.Context, func(Tx) error) error, all bool) (keys int, err error) {
	entries, spilled := u.take(now, all)
	for i, uses := range [][]pendingUse{entries, spilled} {
		slices.SortFunc(uses, func(a, b pendingUse) int { return bytes.Compare(a.id[:], b.id[:]) })
		for part := range slices.Chunk(uses, flushSlice) {
			failed := err
			if failed == nil {
				failed = update(ctx, func(tx Tx) error { return writeUses(tx, part, &u.moves, now) })
			}
			for n := range part {
				u.done(&part[n], i == 1, now, failed)
				if failed == nil {
					u.moves.keep(part[n].moved, now)
				}
				part[n].moved = nil
			}
			if err = failed; err == nil {
				keys += len(part)
			}
		}
	}
	return keys, err
}

// writeUses adds uses to the usage in the store. It may run again after an
// outcome that is unknown, and then finds what it wrote before.
func writeUses(tx Tx, uses []pendingUse, moves *moves, now int64) error {
	for i := range uses {
		p := &uses[i]
		stored, err := tx.Get(TableUsage, p.id[:])
		if err != nil {
			return err
		}
		if p.written == nil || !slices.Equal(stored, p.written) {
			usage, err := decodeUsage(p.id, stored)
			if errors.Is(err, errDamaged) {
				usage = Usage{} // usage is worth less than the key's going on
			} else if err != nil {
				return err
			}
			before := usage
			p.addTo(&usage)
			p.moved = nil
			if p.client != nil {
				p.moved = moves.find(p.id, &before, &usage, now)
			}
			p.written = usage.encode(p.id)
		}
		if err := tx.Put(TableUsage, p.id[:], p.written); err != nil {
			return err
		}
	}
	return nil
}
