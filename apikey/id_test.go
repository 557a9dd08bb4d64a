package apikey

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestIDsAreUUIDsOfVersion7ThatSortByTime(t *testing.T) {
	last, lastTime := ID{}, time.Time{}
	for _, now := range []time.Time{
		time.UnixMilli(1), time.UnixMilli(1_700_000_000_000), time.UnixMilli(1_700_000_000_001),
		time.Date(2026, 11, 23, 1, 2, 3, 456_789_000, time.FixedZone("", 3600)), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		id := newID(now)
		if id[6]>>4 != 7 || id[8]>>6 != 2 {
			t.Errorf("%x is not of version 7 and the variant of RFC 9562", id[:])
		}
		if want := now.UTC().Truncate(time.Millisecond); !id.time().Equal(want) || id.time().Location() != time.UTC {
			t.Errorf("made at %v, says %v", want, id.time())
		}
		if bytes.Compare(last[:], id[:]) >= 0 || last.String() >= id.String() {
			t.Errorf("the id of %v does not sort after that of %v", now, lastTime)
		}
		last, lastTime = id, now
	}
}

func TestIDsAreNotGuessable(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	seen := make(map[ID]bool)
	var ones [128]int
	const n = 4000
	for range n {
		id := newID(now)
		if seen[id] {
			t.Fatalf("%s was made twice", id)
		}
		seen[id] = true
		for bit := range ones {
			ones[bit] += int(id[bit/8] >> (7 - bit%8) & 1)
		}
	}
	free := 0
	for _, count := range ones {
		if count > n/3 && count < n*2/3 {
			free++
		}
	}
	if free != 74 {
		t.Errorf("%d bits are random, want the 74 of a version 7 UUID", free)
	}
}

func TestParseIDAcceptsWhatStringWritesAndNothingElse(t *testing.T) {
	id := newID(time.Now())
	text := id.String()
	if back, ok := ParseID(text); !ok || back != id || len(text) != IDLength {
		t.Fatalf("%q reads as %x, want %x", text, back[:], id[:])
	}
	if got := (ID{}).String(); got != "" || !(ID{}).IsZero() || id.IsZero() {
		t.Errorf("the zero id is written %q", got)
	}
	for name, wrong := range map[string]string{
		"empty":               "",
		"prefix only":         "key_",
		"without prefix":      text[4:],
		"other prefix":        "kex_" + text[4:],
		"upper case prefix":   "KEY_" + text[4:],
		"one digit less":      text[:len(text)-1],
		"one digit more":      text + "0",
		"not a digit":         text[:len(text)-1] + "-",
		"space before":        " " + text[:len(text)-1],
		"not ASCII":           "key_" + strings.Repeat("é", 11),
		"more than 128 bits":  "key_7n42DGM5Tflk9n8mt7Fhc8",
		"all the last digit":  "key_" + strings.Repeat("z", idDigits),
		"the id of no key":    "key_" + strings.Repeat("0", idDigits),
		"NUL":                 text[:len(text)-1] + "\x00",
		"a token, not its id": "ak_" + text[3:],
	} {
		if got, ok := ParseID(wrong); ok {
			t.Errorf("%s: %q was read as %x", name, wrong, got[:])
		}
	}
}

func TestNextIDFollowsInOrder(t *testing.T) {
	for name, c := range map[string][2]ID{
		"plain": {{15: 1}, {15: 2}},
		"carry": {{14: 7, 15: 0xff}, {14: 8}},
		"long":  {{0: 1, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff}, {0: 2}},
	} {
		if got := c[0].next(); got != c[1] {
			t.Errorf("%s: %x follows %x", name, got[:], c[0][:])
		}
	}
}
