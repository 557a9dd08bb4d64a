package apikey

import (
	"cmp"
	"math/bits"
	"slices"
	"time"
)

// What is new about a key's use, its first one or another client, is written by the next
// flush. What only moves the time waits for a sweep: all such uses are written
// together, in the order of the store. That touches each page with usage once, where
// each use, written as soon as it has waited for long enough, touches one of its own.
//
// A sweep is spread over an eighth of the resolution, and begins as much earlier, so
// that no use waits for longer than the resolution.

// sweep is what is left of one, and when the next is due. There is one of the index, and
// one of the backlog.
type sweep[T any] struct {
	left []T
	part int   // how many of them are written in a flush
	next int64 // in Unix milliseconds
}

// dirtyEntry is an entry with usage to flush. They are put in order by the first half of
// the id, most of which is the time of issue: neighbours in the store become
// neighbours here.
type dirtyEntry struct {
	high   uint64
	number uint32
}

func (x *index) dirtyEntry(entry uint64) dirtyEntry {
	return dirtyEntry{x.word(entry, wordHigh).Load(), uint32(entry)}
}

func inOrder(entries []dirtyEntry) {
	slices.SortFunc(entries, func(a, b dirtyEntry) int { return cmp.Compare(a.high, b.high) })
}

// due returns the entries whose usage is to be flushed now, in order: those with
// something new, and a part of the sweep while one goes on. All are new when all is
// to be flushed.
func (u *recorder) due(now int64, all bool) (news, swept []dirtyEntry) {
	x := u.index
	if all {
		u.sweep = sweep[dirtyEntry]{}
	}
	begins := !all && u.sweep.due(now, u.resolution)
	var waiting []dirtyEntry
	for i := range x.dirty {
		for word := x.dirty[i].Load(); word != 0; word &= word - 1 {
			entry := uint64(i*64 + bits.TrailingZeros64(word))
			if all || !x.mayWait(entry) {
				news = append(news, x.dirtyEntry(entry))
			} else if begins {
				waiting = append(waiting, x.dirtyEntry(entry))
			}
		}
	}
	inOrder(news)
	if begins {
		inOrder(waiting)
		u.sweep.begin(waiting, now, u.resolution, u.every)
	}
	for _, at := range u.sweep.take() {
		if x.mayWait(uint64(at.number)) { // else it is among the others already, or clean
			swept = append(swept, at)
		}
	}
	return news, swept
}

// due reports whether a sweep begins.
func (s *sweep[T]) due(now int64, resolution time.Duration) bool {
	return len(s.left) == 0 && (now >= s.next || s.next-now > resolution.Milliseconds()) // the clock jumped and came back
}

// begin begins a sweep of what is in order.
func (s *sweep[T]) begin(all []T, now int64, resolution, every time.Duration) {
	parts := max(1, int(resolution/8/every))
	s.left, s.part = all, len(all)/parts+1
	s.next = now + (resolution - time.Duration(parts-1)*every).Milliseconds()
}

// take returns the next part of the sweep that goes on, if one does.
func (s *sweep[T]) take() (part []T) {
	n := min(s.part, len(s.left))
	if part, s.left = s.left[:n], s.left[n:]; len(s.left) == 0 {
		s.left = nil
	}
	return part
}

// collect returns what the entries have collected, in order.
func (u *recorder) collect(entries []dirtyEntry) []pendingUse {
	x := u.index
	uses := make([]pendingUse, 0, len(entries))
	for _, d := range entries {
		entry := uint64(d.number)
		// Cleared before the entry is read: a use that comes now sets its bit
		// again and is seen the next time.
		x.dirty[entry/64].And(^(uint64(1) << (entry % 64)))
		s := x.stripeOf(entry / ways)
		s.mu.Lock()
		uses = x.collect(uses, entry)
		s.mu.Unlock()
	}
	sortUses(uses)
	return uses
}

// mayWait reports whether an entry has collected uses, and nothing that is worth a
// write now. All keys that are in use come by here at each flush.
func (x *index) mayWait(entry uint64) bool {
	return x.clients[entry].Load() == nil && x.word(entry, wordWaits).Load() != 0 &&
		x.word(entry, wordCount).Load()&lowMask != 0
}
