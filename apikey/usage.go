package apikey

import (
	"hash/maphash"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Usage is recorded in the entries of the index and written to the store later,
// off the request path. A use raises the count of the entry first: an entry
// whose count is not zero keeps its key until the count has been flushed.
//
// The few uses of keys that the index had no room for go to a map, the spill.

// maxUserAgent is how much of a user agent is kept, in bytes.
const maxUserAgent = 256

// client is from where a key was used. It never changes once it is shared, and
// names its key: a recorder that was held up may leave it in an entry that has
// another key by then.
type client struct {
	id        ID
	at        int64
	address   netip.Addr
	userAgent string
}

func newClient(id ID, at int64, address, userAgent string) *client {
	parsed, _ := netip.ParseAddr(address)
	return &client{id, at, parsed.Unmap().WithZone(""), cleanUserAgent(userAgent)}
}

// cleanUserAgent cuts a user agent and drops what is not printable, so that it
// cannot speak to a terminal or a log.
func cleanUserAgent(text string) string {
	if len(text) > maxUserAgent {
		text = text[:maxUserAgent]
		for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
			if tail := text[len(text)-i:]; utf8.RuneStart(tail[0]) {
				if !utf8.FullRuneInString(tail) {
					text = text[:len(text)-i]
				}
				break
			}
		}
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

var hashSeed = maphash.MakeSeed()

// hashClient tells clients of a key apart. It is never 0 or 1.
func hashClient(low uint64, address, userAgent string) uint64 {
	return (low^maphash.String(hashSeed, address)^bits.RotateLeft64(maphash.String(hashSeed, userAgent), 1))&^1 | 2
}

const (
	clientNone = 0 // wordClient: none recorded
	clientBusy = 1 // wordClient: one is being replaced
)

// use records a use in the entry of a key. It reports false when the key has
// lost the entry. displaced is a client of another key that was still there.
func (x *index) use(id ID, at slot, now int64, address, userAgent string) (ok bool, displaced *client) {
	if at.number == 0 {
		return false, nil
	}
	entry := uint64(at.number - 1)
	words := x.words[entry*entryWords : (entry+1)*entryWords]
	life := uint64(at.life)

	for count := &words[wordCount]; ; {
		old := count.Load()
		if old>>lifeShift != life {
			return false, nil
		}
		if count.CompareAndSwap(old, old+1) {
			break
		}
	}
	for used := &words[wordUsed]; ; {
		old := used.Load()
		if old>>lifeShift != life || int64(old&lowMask) >= now || used.CompareAndSwap(old, life<<lifeShift|uint64(now)) {
			break
		}
	}
	_, low := halves(id)
	hash := hashClient(low, address, userAgent)
	if old := words[wordClient].Load(); old != hash && old != clientBusy &&
		words[wordClient].CompareAndSwap(old, clientBusy) {
		// Whoever finds it busy used the key at the same moment, and this
		// client is as much the last one as his.
		displaced = x.clients[entry].Swap(newClient(id, now, address, userAgent))
		words[wordClient].Store(hash)
	}
	if bit := uint64(1) << (entry % 64); x.dirty[entry/64].Load()&bit == 0 {
		x.dirty[entry/64].Or(bit)
	}
	if displaced != nil && displaced.id == id {
		displaced = nil
	}
	return true, displaced
}

// pendingUse is usage that is not in the store yet.
type pendingUse struct {
	id     ID
	used   int64
	count  uint64
	client *client // nil: as it was
	entry  uint64  // where it was collected
	life   uint64

	written []byte // what the last attempt to flush it wrote
}

// collect appends a copy of what an entry has collected to uses. It reports
// false when the entry is just being written.
func (x *index) collect(uses []pendingUse, entry uint64) ([]pendingUse, bool) {
	e, ok := x.read(entry)
	if !ok {
		return uses, x.tags[entry].Load() == 0
	}
	p := pendingUse{entry: entry, life: uint64(e.slot.life)}
	putHalves(&p.id, e.high, e.low)
	count, used := x.word(entry, wordCount).Load(), x.word(entry, wordUsed).Load()
	if count>>lifeShift != p.life || used>>lifeShift != p.life {
		return uses, false
	}
	p.count, p.used = count&lowMask, int64(used&lowMask)
	c := x.clients[entry].Load()
	if c != nil && c.id != p.id {
		uses = append(uses, pendingUse{id: c.id, used: c.at, client: c, entry: entry, life: p.life})
		c = nil
	}
	if p.client = c; p.count > 0 || c != nil {
		uses = append(uses, p)
	}
	return uses, true
}

// flushed takes what is in the store now out of the entry.
func (x *index) flushed(p *pendingUse) {
	if p.client != nil {
		x.clients[p.entry].CompareAndSwap(p.client, nil)
	}
	if p.count == 0 {
		return
	}
	x.word(p.entry, wordSaved).Store(uint64(p.used))
	count := x.word(p.entry, wordCount) // from here on the entry may lose its key
	for {
		if old := count.Load(); count.CompareAndSwap(old, old-p.count) {
			return
		}
	}
}

// pending returns the unflushed usage of one key.
func (x *index) pending(id ID) (uses []pendingUse) {
	high, low := halves(id)
	set := x.setOf(low)
	for entry := set * ways; entry < (set+1)*ways; entry++ {
		if x.tags[entry].Load() == low && x.word(entry, wordHigh).Load() == high {
			uses, _ = x.collect(nil, entry)
		}
	}
	return slices.DeleteFunc(uses, func(p pendingUse) bool { return p.id != id })
}
