package apikey

import (
	"cmp"
	"context"
	"iter"
	"math"
	"slices"
	"time"
)

// A key that has just come into the index brings a client that it does not know. Where
// the store has the same client of the key, its use only moves the time, like the
// uses that wait in the index for a sweep. But the entry cannot wait: the next key
// may need it. So the use is put off into the backlog, and has a sweep there.

// maxBacklog is how many keys the backlog takes, some 10 MiB, and how many it may know
// of that it has swept, some 5 MiB. Uses of others are written at once.
const maxBacklog = 1 << 17

// backlog is usage that waits for a sweep. Its uses are guarded by the mu of the
// recorder; the rest is one flush's at a time.
type backlog struct {
	uses  map[ID]waitingUse // without pointers, so that the collector never reads it
	sweep sweep[ID]

	// known are the clients, as hashes, that the store has of the keys in the last
	// sweep: who was swept a moment ago need not be compared when it comes again.
	known map[ID]uint32
}

func newBacklog() backlog {
	return backlog{uses: make(map[ID]waitingUse), known: make(map[ID]uint32)}
}

// waitingUse is a pendingUse by the client that the store has.
type waitingUse struct {
	used   int64
	count  uint32
	client uint32 // hash; 0: it was not told
}

// add puts a use off, or reports false when there is no room.
func (b *backlog) add(p *pendingUse) bool {
	w, found := b.uses[p.id]
	if !found && len(b.uses) >= maxBacklog || p.count > uint64(math.MaxUint32-w.count) {
		return false
	}
	b.uses[p.id] = waitingUse{max(w.used, p.used), w.count + uint32(p.count), cmp.Or(p.client.hash(), w.client)}
	return true
}

// addAgain puts another use off by the client of one that waits, or was swept, or
// reports false when it is not known to be that.
func (b *backlog) addAgain(p *pendingUse) bool {
	w, found := b.uses[p.id]
	if !found {
		w.client, found = b.known[p.id]
	}
	return found && (p.client == nil || p.client.hash() == w.client) && b.add(p)
}

// pending returns what waits of a key.
func (b *backlog) pending(id ID) (p pendingUse, found bool) {
	w, found := b.uses[id]
	return pendingUse{id: id, used: w.used, count: uint64(w.count)}, found
}

// flushed takes what is in the store now out of the backlog.
func (b *backlog) flushed(p *pendingUse) {
	w := b.uses[p.id]
	if w.count -= uint32(p.count); w.count == 0 && w.used <= p.used {
		delete(b.uses, p.id)
		if w.client != 0 {
			b.known[p.id] = w.client
		}
	} else {
		b.uses[p.id] = w
	}
}

// forget is called before the clients of some keys may change in the store.
func (b *backlog) forget(ids iter.Seq[ID]) {
	for id := range ids {
		delete(b.known, id)
	}
}

// due returns the keys whose usage is to be written now: a part of the sweep while one
// goes on, or all. A sweep begins early when there is little room left.
func (b *backlog) due(now int64, resolution, every time.Duration, all bool) []ID {
	if all || b.sweep.due(now, resolution) || len(b.sweep.left) == 0 && len(b.uses) > maxBacklog*3/4 {
		ids := make([]ID, 0, len(b.uses))
		for id := range b.uses {
			ids = append(ids, id)
		}
		slices.SortFunc(ids, ID.compare)
		clear(b.known)
		if b.sweep = (sweep[ID]{}); all {
			return ids
		}
		b.sweep.begin(ids, now, resolution, every)
	}
	return b.sweep.take()
}

// usageView reads usage.
type usageView func(ctx context.Context, fn func(Reader) error) error

// putOff takes the uses that may wait, of some that are sorted by their keys, to the
// backlog, and returns the others. taken is called for each that is there now, with
// the mu held, so that nobody sees it twice or not at all.
func (u *recorder) putOff(ctx context.Context, uses []pendingUse, view usageView, taken func(*pendingUse)) (others []pendingUse) {
	if others = u.wait(uses, u.backlog.addAgain, taken); len(others) == 0 {
		return nil
	}
	// When it fails, the write that follows will tell.
	_ = view(ctx, func(tx Reader) error { return u.writer.compare(tx, others) })
	return u.wait(others, func(p *pendingUse) bool { return p.mayWait && u.backlog.add(p) }, taken)
}

// wait takes the uses that add puts into the backlog, and returns the others.
func (u *recorder) wait(uses []pendingUse, add func(*pendingUse) bool, taken func(*pendingUse)) (others []pendingUse) {
	others = uses[:0]
	for i := range uses {
		p := &uses[i]
		u.mu.Lock() // for one at a time: requests may need it
		put := add(p)
		if put {
			taken(p)
		}
		u.mu.Unlock()
		if !put {
			others = append(others, *p)
		}
	}
	return others
}

// waiting returns what waits of some keys.
func (u *recorder) waiting(ids iter.Seq[ID]) (uses []pendingUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id := range ids {
		if p, found := u.backlog.pending(id); found {
			uses = append(uses, p)
		}
	}
	return uses
}

// doneWaiting takes flushed usage out of the backlog.
func (u *recorder) doneWaiting(p *pendingUse, err error) {
	if err == nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.backlog.flushed(p)
	}
}
