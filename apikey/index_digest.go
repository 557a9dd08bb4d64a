package apikey

import (
	"encoding/binary"
	"math/rand/v2"
)

// The index finds keys of foreign tokens by the digest of the token: a table of
// words, each with the number of an entry and bits of the digest. A word proves
// nothing, it is a place to look at: the digest in the entry decides, and whatever
// happens to the key happens to the entry. So words need no lock and are never
// cleared; those that lead nowhere any more are overwritten.
//
// Only who has presented the token of a key gets a word into the table.

// digestRows is how many words there are for each entry. With so many, a set is
// practically never full of keys that the index has.
const digestRows = 4

// digestWays is how many words a set of them has.
const digestWays = 16

// rowsOf returns the set of a digest, and the bits that its word holds.
func (x *index) rowsOf(d *digest) (first, mark uint64) {
	sets := uint64(len(x.digests) / digestWays)
	return binary.BigEndian.Uint64(d.sum[:]) % sets * digestWays, uint64(binary.BigEndian.Uint32(d.sum[8:]))
}

// findDigest is find for a key whose token has a digest.
func (x *index) findDigest(d *digest) (id ID, e entryView, ok bool) {
	first, mark := x.rowsOf(d)
	for row := first; row < first+digestWays; row++ {
		word := x.digests[row].Load()
		if word == 0 || word>>32 != mark {
			continue
		}
		entry := word&0xffffffff - 1
		if x.read(entry, &e) && e.digest.equal(d) && e.state&stateStale == 0 && !x.closed.Load() {
			x.hit(entry)
			putHalves(&id, e.high, e.low)
			return id, e, true
		}
	}
	return ID{}, entryView{}, false
}

// keepDigest remembers in which slot the key is whose token has a digest.
func (x *index) keepDigest(d *digest, s slot) {
	if s.number == 0 {
		return
	}
	first, mark := x.rowsOf(d)
	into := first + rand.Uint64N(digestWays)
	for row := first; row < first+digestWays; row++ {
		switch word := x.digests[row].Load(); {
		case word == mark<<32|uint64(s.number):
			return
		case !x.leads(word, first):
			into = row
		}
	}
	x.digests[into].Store(mark<<32 | uint64(s.number))
}

// leads reports whether a word of the set at first still leads to a key.
func (x *index) leads(word, first uint64) bool {
	var e entryView
	if word == 0 || !x.read(word&0xffffffff-1, &e) {
		return false
	}
	set, mark := x.rowsOf(&e.digest)
	return set == first && mark == word>>32
}
