package apikey

import (
	"context"
	"errors"
	"iter"
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
	resolution time.Duration // how long what only moves the time may wait
	every      time.Duration // how often there is a flush
	moves      moves
	writer     usageWriter
	sweep      sweep[dirtyEntry]

	unsettled *usageSlice // of the flush before; its outcome is not known

	mu      sync.Mutex
	spill   map[ID]*pendingUse
	backlog backlog
	dropped int
}

func newRecorder(index *index, resolution, every time.Duration) *recorder {
	return &recorder{
		index: index, resolution: resolution, every: every, moves: newMoves(),
		spill: make(map[ID]*pendingUse), backlog: newBacklog(),
	}
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
func (u *recorder) pending(id ID) (uses []pendingUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p, found := u.backlog.pending(id); found {
		uses = append(uses, p)
	}
	uses = append(uses, u.index.pending(id)...)
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
	return u.index.dirtyEntries() + len(u.spill) + len(u.backlog.uses)
}

func (x *index) dirtyEntries() (n int) {
	for i := range x.dirty {
		n += bits.OnesCount64(x.dirty[i].Load())
	}
	return n
}

// done takes flushed usage out of the entry where it was collected, or, when it could
// not be written, sees to it that it comes again.
func (u *recorder) done(p *pendingUse, err error) {
	if err != nil {
		u.index.dirty[p.entry/64].Or(1 << (p.entry % 64))
		return
	}
	u.index.flushed(p)
}

// doneSpilled takes flushed usage out of the spill.
func (u *recorder) doneSpilled(p *pendingUse, err error) {
	if err == nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.flushedSpill(p)
	}
}

func (u *recorder) flushedSpill(p *pendingUse) {
	if kept := u.spill[p.id]; kept.count == p.count && kept.client == p.client {
		delete(u.spill, p.id)
	} else {
		kept.count -= p.count
	}
}

// spilled returns a copy of the spill, in order.
func (u *recorder) spilled() (uses []pendingUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range u.spill {
		uses = append(uses, *p)
	}
	sortUses(uses)
	return uses
}

// keysWithClients yields the keys of uses that bring a client, each once. The uses are in
// order.
func keysWithClients(uses []pendingUse) iter.Seq[ID] {
	return func(yield func(ID) bool) {
		var last ID
		for i := range uses {
			if p := &uses[i]; p.client != nil && p.id != last {
				if last = p.id; !yield(last) {
					return
				}
			}
		}
	}
}

func sortUses(uses []pendingUse) {
	slices.SortFunc(uses, func(a, b pendingUse) int { return a.id.compare(b.id) })
}

// usageSlice is usage that is written in one transaction.
type usageSlice struct {
	uses    []pendingUse
	done    func(p *pendingUse, err error)
	flushed func(p *pendingUse) // nil: it has waited already
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

// flush writes collected usage to the store, sorted, a slice at a time: what is due, or
// all.
func (u *recorder) flush(ctx context.Context, now int64, view usageView, update usageUpdate, all bool) (keys int, err error) {
	write := func(s *usageSlice) {
		if err == nil && len(s.uses) > 0 {
			if err = update(ctx, func(tx Tx) error { return u.writer.write(tx, s.uses, &u.moves, now) }, s.lost); errors.Is(err, ErrOutcomeUnknown) {
				u.unsettled = s
			}
		}
		for i := range s.uses {
			s.done(&s.uses[i], err)
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
	for s := range u.collected(now, all) {
		if s.flushed != nil && !all {
			s.uses = u.putOff(ctx, s.uses, view, s.flushed)
		}
		// What waits is by the client that the store has, which these may change.
		write(&usageSlice{u.waiting(keysWithClients(s.uses)), u.doneWaiting, nil})
		u.backlog.forget(keysWithClients(s.uses))
		write(s)
		if err != nil { // the next flush begins sweeps, with what could not be written
			u.sweep, u.backlog.sweep = sweep[dirtyEntry]{}, sweep[ID]{}
			break
		}
	}
	return keys, err
}

// collected collects what is due, or all, a slice at a time: copies of the usage of all
// keys would be more memory than all that the gateway keeps on its heap. What waits
// comes last, after what was put off.
func (u *recorder) collected(now int64, all bool) iter.Seq[*usageSlice] {
	return func(yield func(*usageSlice) bool) {
		news, swept := u.due(now, all)
		for entries := range slices.Chunk(news, flushSlice) {
			if !yield(&usageSlice{u.collect(entries), u.done, u.index.flushed}) {
				return
			}
		}
		for entries := range slices.Chunk(swept, flushSlice) {
			if !yield(&usageSlice{u.collect(entries), u.done, nil}) {
				return
			}
		}
		for uses := range slices.Chunk(u.spilled(), flushSlice) {
			if !yield(&usageSlice{uses, u.doneSpilled, u.flushedSpill}) {
				return
			}
		}
		for ids := range slices.Chunk(u.backlog.due(now, u.resolution, u.every, all), flushSlice) {
			if !yield(&usageSlice{u.waiting(slices.Values(ids)), u.doneWaiting, nil}) {
				return
			}
		}
	}
}
