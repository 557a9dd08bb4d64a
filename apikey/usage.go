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
// off the request path. A use sets the time of the entry, then raises its count:
// an entry whose count is not zero keeps its key until the count has been
// flushed, and whoever takes the count takes a time that is at least as late.
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

func newClient(id ID, at int64, address, userAgent string, prefixes []string) *client {
	parsed, _ := netip.ParseAddr(address)
	// Redacted after it was cleaned, which can make a token of a text.
	return &client{id, at, parsed.Unmap().WithZone(""), redactTokens(cleanUserAgent(userAgent), prefixes)}
}

// hash tells clients apart. It is 0 for none, and for no other.
func (c *client) hash() uint32 {
	if c == nil {
		return 0
	}
	return uint32(maphash.Comparable(hashSeed, struct {
		address   netip.Addr
		userAgent string
	}{c.address, c.userAgent})) | 1
}

// cleanUserAgent cuts a user agent and drops what is not printable, so that it
// cannot speak to a terminal or a log.
func cleanUserAgent(text string) string {
	if len(text) > maxUserAgent {
		text = strings.Clone(text[:maxUserAgent]) // lets the rest of it go
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
func (x *index) use(id ID, at slot, now int64, address, userAgent string, prefixes []string) (ok bool, displaced *client) {
	if at.number == 0 {
		return false, nil
	}
	entry := uint64(at.number - 1)
	words := x.words[entry*entryWords : (entry+1)*entryWords]
	life := uint64(at.life)

	for used := &words[wordUsed]; ; {
		old := used.Load()
		if old>>lifeShift != life {
			return false, nil
		}
		if int64(old&lowMask) >= now || used.CompareAndSwap(old, life<<lifeShift|uint64(now)) {
			break
		}
	}
	for count := &words[wordCount]; ; {
		old := count.Load()
		if old>>lifeShift != life {
			return false, nil
		}
		if count.CompareAndSwap(old, old+1) {
			break
		}
	}
	_, low := halves(id)
	hash := hashClient(low, address, userAgent)
	if old := words[wordClient].Load(); old != hash && old != clientBusy &&
		words[wordClient].CompareAndSwap(old, clientBusy) {
		// Whoever finds it busy used the key at the same moment, and this
		// client is as much the last one as his.
		displaced = x.clients[entry].Swap(newClient(id, now, address, userAgent, prefixes))
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

	mayWait bool // it only moves the time (see backlog.go)

	leaves left          // what the run of a write leaves that came last
	wrote  left          // what one leaves whose outcome is not known
	moved  *ClientChange // what that changes much
}

// left is what stands in the store of a key after its use was written: nothing else
// leaves the same.
type left struct {
	count uint64
	used  int64
}

// collect appends a copy of what an entry has collected to uses. The stripe must
// be held.
func (x *index) collect(uses []pendingUse, entry uint64) []pendingUse {
	p := pendingUse{entry: entry}
	putHalves(&p.id, x.word(entry, wordHigh).Load(), x.tags[entry].Load())
	p.count = x.word(entry, wordCount).Load() & lowMask // before the time
	p.used = int64(x.word(entry, wordUsed).Load() & lowMask)
	c := x.clients[entry].Load()
	if c != nil && c.id != p.id {
		uses = append(uses, pendingUse{id: c.id, used: c.at, client: c, entry: entry})
		c = nil
	}
	if p.client = c; p.count > 0 || c != nil {
		uses = append(uses, p)
	}
	return uses
}

// flushed takes what is in the store now out of the entry.
func (x *index) flushed(p *pendingUse) {
	if p.client != nil {
		x.clients[p.entry].CompareAndSwap(p.client, nil)
	}
	if p.count == 0 {
		return
	}
	x.word(p.entry, wordWaits).Store(1)
	count := x.word(p.entry, wordCount) // from here on the entry may lose its key
	for {
		if old := count.Load(); count.CompareAndSwap(old, old-p.count) {
			return
		}
	}
}

// pending returns the unflushed usage of one key. It looks at the whole set: a
// client may have been left behind in an entry that the key has lost.
func (x *index) pending(id ID) (uses []pendingUse) {
	_, low := halves(id)
	set := x.setOf(low)
	s := x.stripeOf(set)
	s.mu.Lock()
	defer s.mu.Unlock()
	for entry := set * ways; entry < (set+1)*ways; entry++ {
		uses = x.collect(uses, entry)
	}
	return slices.DeleteFunc(uses, func(p pendingUse) bool { return p.id != id })
}
