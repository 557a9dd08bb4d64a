package apikey

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// ID is the public name of a key: a version 7 UUID (RFC 9562), so that ids made
// later sort after ids made earlier, to the millisecond.
type ID [16]byte

const (
	idDigits = 22
	// idPrefix starts the text form of an id in the API.
	idPrefix = "key_"
	// IDLength is the length of an id's text form in bytes.
	IDLength = len(idPrefix) + idDigits
)

// newID makes the id of a key that is created at now.
func newID(now time.Time) ID {
	var id ID
	rand.Read(id[6:]) // never fails: crypto/rand ends the process instead
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the text form of an id, as the API shows it: "key_" and 22
// base62 digits. It reports false for anything else, among it a number of more than
// 128 bits, and the id of no key.
func ParseID(text string) (ID, bool) {
	if len(text) != IDLength || text[:len(idPrefix)] != idPrefix {
		return ID{}, false
	}
	id, ok := parseIDDigits(text[len(idPrefix):])
	return id, ok && !id.IsZero()
}

func parseIDDigits(digits string) (id ID, ok bool) {
	high, low, ok := parseUint128(digits)
	binary.BigEndian.PutUint64(id[:8], high)
	binary.BigEndian.PutUint64(id[8:], low)
	return id, ok
}

// String returns the text form that ParseID reads, or "" for the zero id, which
// is the id of no key.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return string(id.appendDigits(append(make([]byte, 0, IDLength), idPrefix...)))
}

// IsZero reports whether id is the id of no key.
func (id ID) IsZero() bool { return id == ID{} }

func (id ID) appendDigits(dst []byte) []byte {
	high, low := halves(id)
	return appendUint128(dst, high, low)
}

// time returns when the id was made.
func (id ID) time() time.Time {
	high, _ := halves(id)
	return time.UnixMilli(int64(high >> 16)).UTC()
}

// compare returns how two ids stand in order, as cmp.Compare does.
func (id ID) compare(other ID) int {
	high, low := halves(id)
	otherHigh, otherLow := halves(other)
	if high != otherHigh {
		return cmp.Compare(high, otherHigh)
	}
	return cmp.Compare(low, otherLow)
}

// next returns the id that follows in order.
func (id ID) next() ID {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id
}
