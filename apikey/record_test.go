package apikey

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type keyUsage struct {
	id ID
	Usage
}

// readBlock returns what a stored block holds.
func readBlock(from ID, value []byte) (usages []keyUsage, err error) {
	if _, err := lastUsed(from, value); err != nil {
		return nil, err
	}
	b := usageBlock{from: from}
	for err = b.open(value); err == nil && b.rows != ""; {
		var u keyUsage
		var row string
		if u.id, row, err = b.cut(); err == nil {
			u.Usage, err = b.usage(row)
		}
		u.LastUsedUserAgent = strings.Clone(u.LastUsedUserAgent)
		usages = append(usages, u)
	}
	return usages, err
}

// storedBlock returns a block as it is stored.
func storedBlock(from ID, usages []keyUsage) []byte {
	store, w := tables{}, usageRows{}
	for i := range usages {
		w.add(usages[i].id, &usages[i].Usage)
	}
	if err := w.writeAs(store, from); err != nil {
		panic(err)
	}
	return store[TableUsage.String()+string(from[:])]
}

func unhex(text string) []byte {
	b, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return b
}

var goldenID = ID(unhex("0197a5b4c3d27e8f9a0b1c2d3e4f5061"))

func goldenDigest() digest {
	d := digest{algorithm: algorithmSHA256}
	for i := range d.sum {
		d.sum[i] = byte(i)
	}
	return d
}

// The bytes were written by another program, from the drawing of the format. A
// change of them is a new version of the format, which must read the old one.
var goldenRecords = map[string]struct {
	stored string
	record record
}{
	"full": {
		"017f01000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f02616b0461636d6505726f626f740b6e69676874" +
			"6c7920e29c930d666f7220746865206275696c6405616c6963650197a5b4c3d27e8f9a0b1c2d3e4f5060fba0f1c2b134c8dbc1a28c" +
			"34e16b8eb5",
		record{digest: goldenDigest(), Key: Key{
			ID: goldenID, OrganizationID: "acme", ServiceAccountID: "robot", Name: "nightly ✓", Description: "for the build",
			Scope: ScopeReadWrite, Prefix: "ak", CreatedAt: time.UnixMilli(0x0197a5b4c3d2).UTC(),
			CreatedBy: "alice", MintedBy: ID(unhex("0197a5b4c3d27e8f9a0b1c2d3e4f5060")),
			ExpiresAt: time.UnixMilli(1800000000123).UTC(), RevokedAt: time.UnixMilli(1790000000456).UTC(),
		}},
	},
	"least": {
		"010001000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f02616b0461636d6505616c69636505666972737" +
			"4cfc583dc",
		record{digest: goldenDigest(), Key: Key{
			ID: goldenID, OrganizationID: "acme", UserID: "alice", Name: "first",
			Prefix: "ak", CreatedAt: time.UnixMilli(0x0197a5b4c3d2).UTC(), CreatedBy: "alice",
		}},
	},
}

var goldenUsages = map[string]struct {
	stored  string
	usages  []keyUsage
	written bool // or of a version that is only read
}{
	"of one key, IPv4": {stored: "01c8dbc1a28c34ac0204c00002070a6375726c2f382e352e30c4ee712e", usages: []keyUsage{{goldenID, Usage{
		LastUsedAt: time.UnixMilli(1790000000456).UTC(), LastUsedIP: netip.MustParseAddr("192.0.2.7"), LastUsedUserAgent: "curl/8.5.0", Count: 300,
	}}}},
	"of one key, IPv6": {stored: "0101011020010db80000000000000000000000010059b90d82", usages: []keyUsage{{goldenID, Usage{
		LastUsedAt: time.UnixMilli(1).UTC(), LastUsedIP: netip.MustParseAddr("2001:db8::1"), Count: 1,
	}}}},
	"of one key, no client": {stored: "0101010000640eae4b", usages: []keyUsage{{goldenID, Usage{LastUsedAt: time.UnixMilli(1).UTC(), Count: 1}}}},
	"a block of one key": {
		"020b0a6375726c2f382e352e300197a5b4c3d27e8f9a0b1c2d3e4f50610ec8dbc1a28c34ac0204c000020701c229c533",
		[]keyUsage{{goldenID, Usage{
			LastUsedAt: time.UnixMilli(1790000000456).UTC(), LastUsedIP: netip.MustParseAddr("192.0.2.7"), LastUsedUserAgent: "curl/8.5.0", Count: 300,
		}}},
		true,
	},
	"a block of several": {
		"021e0a6375726c2f382e352e3012476f2d687474702d636c69656e742f312e310197a5b4c3d27e8f9a0b1c2d3e4f50610ec8" +
			"dbc1a28c34ac0204c0000207010197a5b4c3d27e8f9a0b1c2d3e4f50620dc9dbc1a28c340104c0000207020197a5b4c3d370" +
			"00800000000000000a1401011020010db8000000000000000000000001000197a5b4c3d47000800000000000000b04010200" +
			"01b68a7d2d",
		[]keyUsage{
			{goldenID, Usage{
				LastUsedAt: time.UnixMilli(1790000000456).UTC(), LastUsedIP: netip.MustParseAddr("192.0.2.7"), LastUsedUserAgent: "curl/8.5.0", Count: 300,
			}},
			{ID(unhex("0197a5b4c3d27e8f9a0b1c2d3e4f5062")), Usage{
				LastUsedAt: time.UnixMilli(1790000000457).UTC(), LastUsedIP: netip.MustParseAddr("192.0.2.7"), LastUsedUserAgent: "Go-http-client/1.1", Count: 1,
			}},
			{ID(unhex("0197a5b4c3d37000800000000000000a")), Usage{
				LastUsedAt: time.UnixMilli(1).UTC(), LastUsedIP: netip.MustParseAddr("2001:db8::1"), Count: 1,
			}},
			{ID(unhex("0197a5b4c3d47000800000000000000b")), Usage{LastUsedAt: time.UnixMilli(1).UTC(), LastUsedUserAgent: "curl/8.5.0", Count: 2}},
		},
		true,
	},
	"a block that lost its first keys": {
		"02000197a5b4c3d47000800000000000000b04010200004c8d84e2",
		[]keyUsage{{ID(unhex("0197a5b4c3d47000800000000000000b")), Usage{LastUsedAt: time.UnixMilli(1).UTC(), Count: 2}}},
		true,
	},
}

func TestStoredFormatHasNotChanged(t *testing.T) {
	for name, golden := range goldenRecords {
		if got := hex.EncodeToString(golden.record.encode()); got != golden.stored {
			t.Errorf("record %q is stored as %s", name, got)
		}
		got, err := decodeRecord(goldenID, unhex(golden.stored))
		if err != nil || !reflect.DeepEqual(*got, golden.record) {
			t.Errorf("record %q is read as %+v, %v", name, got, err)
		}
	}
	for name, golden := range goldenUsages {
		if got := hex.EncodeToString(storedBlock(goldenID, golden.usages)); golden.written && got != golden.stored {
			t.Errorf("usage %q is stored as %s", name, got)
		}
		if got, err := readBlock(goldenID, unhex(golden.stored)); err != nil || !slices.Equal(got, golden.usages) {
			t.Errorf("usage %q is read as %+v, %v", name, got, err)
		}
	}
}

func TestRecordReadsBackAsItWasWritten(t *testing.T) {
	id := newID(time.UnixMilli(1_790_000_000_000))
	base := record{digest: peppers(nil).digestOf("secret"), Key: Key{
		ID: id, OrganizationID: "acme", UserID: "alice", Name: "n", CreatedBy: "alice",
		Prefix: "ak", CreatedAt: id.time(),
	}}
	for name, change := range map[string]func(r *record){
		"plain":               func(r *record) {},
		"service account":     func(r *record) { r.UserID, r.ServiceAccountID = "", "alice" },
		"read-write":          func(r *record) { r.Scope = ScopeReadWrite },
		"made by the owner":   func(r *record) {},
		"made by another":     func(r *record) { r.CreatedBy = OperatorName },
		"made by nobody":      func(r *record) { r.CreatedBy = "" },
		"minted by a key":     func(r *record) { r.MintedBy = ID{15: 1} },
		"expires":             func(r *record) { r.ExpiresAt = time.UnixMilli(1).UTC() },
		"expires far away":    func(r *record) { r.ExpiresAt = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC) },
		"revoked":             func(r *record) { r.RevokedAt = time.UnixMilli(1_790_000_000_001).UTC() },
		"longest texts":       longest,
		"no name":             func(r *record) { r.Name = "" },
		"description":         func(r *record) { r.Description = "\U0001f511 = \u0416" },
		"imported":            func(r *record) { r.imported = digest{algorithmTrace, 7, [32]byte{1, 31: 2}} },
		"another prefix":      func(r *record) { r.Prefix = "old_ak" },
		"everything together": func(r *record) { longest(r); r.ExpiresAt, r.RevokedAt, r.MintedBy = r.CreatedAt, r.CreatedAt, id },
	} {
		r := base
		change(&r)
		got, err := decodeRecord(id, r.encode())
		if err != nil || !reflect.DeepEqual(*got, r) {
			t.Errorf("%s: wrote %+v, read %+v, %v", name, r, got, err)
		}
		if endless(r.encode()) != (r.RevokedAt.IsZero() && r.ExpiresAt.IsZero()) {
			t.Errorf("%s: endless is %v", name, endless(r.encode()))
		}
	}
}

func longest(r *record) {
	r.OrganizationID, r.UserID = strings.Repeat("o", MaxIdentityLength), strings.Repeat("u", MaxIdentityLength)
	r.CreatedBy = strings.Repeat("c", MaxIdentityLength)
	r.Name, r.Description = strings.Repeat("\U0001f511", MaxNameLength), strings.Repeat("\U0001f511", MaxDescriptionLength)
}

type storedValue struct {
	value []byte
	read  func(ID, []byte) error
}

// stored is every golden value, with the function that reads it.
func stored() map[string]storedValue {
	all := make(map[string]storedValue)
	for name, golden := range goldenRecords {
		all["record "+name] = storedValue{unhex(golden.stored), readRecord}
	}
	for name, golden := range goldenUsages {
		all["usage "+name] = storedValue{unhex(golden.stored), readUsage}
	}
	return all
}

func readRecord(id ID, value []byte) error {
	_, err := decodeRecord(id, value)
	return err
}

func readUsage(id ID, value []byte) error {
	_, err := readBlock(id, value)
	return err
}

func TestEveryDamageOfAStoredValueIsNoticed(t *testing.T) {
	for name, s := range stored() {
		damaged := func(what string, value []byte) {
			t.Helper()
			if err := s.read(goldenID, value); !errors.Is(err, errDamaged) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		for i := range s.value {
			for flip := 1; flip < 256; flip++ {
				value := bytes.Clone(s.value)
				value[i] ^= byte(flip)
				damaged("a byte changed", value)
			}
			if i > 0 { // no record at all is no usage
				damaged("cut", s.value[:i])
			}
			damaged("a byte lost", append(bytes.Clone(s.value[:i]), s.value[i+1:]...))
			damaged("a byte more", append(append(bytes.Clone(s.value[:i]), 7), s.value[i:]...))
		}
		damaged("a byte behind it", append(bytes.Clone(s.value), 0))
		damaged("empty", []byte{})
		damaged("zeros", make([]byte, len(s.value)))
	}
}

func TestStoredValueIsBoundToItsKey(t *testing.T) {
	for name, s := range stored() {
		for i := range goldenID {
			other := goldenID
			other[i] ^= 1
			if err := s.read(other, s.value); !errors.Is(err, errDamaged) {
				t.Errorf("%s is read under another id: %v", name, err)
			}
		}
	}
}

func TestValueOfANewerVersionIsAnErrorThatSaysSo(t *testing.T) {
	for name, s := range stored() {
		newer := bytes.Clone(s.value[:len(s.value)-4])
		newer[0] = 3
		err := s.read(goldenID, seal(goldenID, newer))
		if err == nil || errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), "newer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	future := bytes.Clone(unhex(goldenRecords["least"].stored))
	future = future[:len(future)-4]
	future[2] = 9
	if err := readRecord(goldenID, seal(goldenID, future)); err == nil || errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "algorithm 9") {
		t.Errorf("a digest of another algorithm: %v", err)
	}
}

// A checksum is no signature: whoever can write to the store can make it right.
func TestSealedNonsenseIsRefused(t *testing.T) {
	with := func(change func(r *record)) []byte {
		r := goldenRecords["least"].record
		change(&r)
		return r.encode()
	}
	unsealed := func(change func(value []byte) []byte) []byte {
		value := unhex(goldenRecords["full"].stored)
		return seal(goldenID, change(value[:len(value)-4]))
	}
	for name, value := range map[string][]byte{
		"no organization":            with(func(r *record) { r.OrganizationID = "" }),
		"no owner":                   with(func(r *record) { r.UserID = "" }),
		"organization too long":      with(func(r *record) { r.OrganizationID = strings.Repeat("a", 129) }),
		"owner that wraps its width": with(func(r *record) { r.UserID = strings.Repeat("a", 257) }),
		"organization with a NUL":    with(func(r *record) { r.OrganizationID = "a\x00b" }),
		"owner with a line break":    with(func(r *record) { r.UserID = "a\r\nX: b" }),
		"unknown flag":               unsealed(func(v []byte) []byte { v[1] |= 0x80; return v }),
		"something behind it":        unsealed(func(v []byte) []byte { return append(v, 0) }),
		"cut":                        unsealed(func(v []byte) []byte { return v[:len(v)-1] }),
		"version only":               seal(goldenID, []byte{1}),
		"text longer than the rest":  unsealed(func(v []byte) []byte { v[35] = 200; return v }),
		"length of 2^63 and more":    seal(goldenID, append(unhex(goldenRecords["least"].stored)[:35], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)),
		"length of too many bytes":   seal(goldenID, append(unhex(goldenRecords["least"].stored)[:35], bytes.Repeat([]byte{0xff}, 12)...)),
	} {
		if _, err := decodeRecord(goldenID, value); !errors.Is(err, errDamaged) {
			t.Errorf("record, %s: %v", name, err)
		}
	}
	for name, value := range map[string][]byte{
		"version only":              seal(goldenID, []byte{1}),
		"something behind it":       seal(goldenID, []byte{1, 1, 1, 0, 0, 0}),
		"address too long":          seal(goldenID, []byte{1, 1, 1, 9, 0}),
		"no key in a block":         seal(goldenID, []byte{2, 0}),
		"half of a key":             seal(goldenID, append([]byte{2, 0}, goldenID[:9]...)),
		"a key and nothing":         seal(goldenID, append([]byte{2, 0}, goldenID[:]...)),
		"a row that is cut":         seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{5, 1, 1, 0, 0})),
		"a row with something more": seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{5, 1, 1, 0, 0, 0})),
		"a row without an end":      seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{3, 1, 1, 0}, goldenID[:], []byte{4, 1, 1, 0, 0})),
		"a user agent of none":      seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{4, 1, 1, 0, 1})),
		"half of a user agent":      seal(goldenID, slices.Concat([]byte{2, 2, 2, 'a'}, goldenID[:], []byte{4, 1, 1, 0, 1})),
		"address of 5 bytes":        seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{9, 1, 1, 5}, make([]byte, 6))),
		"a key before its block":    seal(goldenID, slices.Concat([]byte{2, 0}, make([]byte, 16), []byte{4, 1, 1, 0, 0})),
		"a key twice":               seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{4, 1, 1, 0, 0}, goldenID[:], []byte{4, 1, 1, 0, 0})),
		"numbers of 11 bytes":       seal(goldenID, slices.Concat([]byte{2, 0}, goldenID[:], []byte{14}, bytes.Repeat([]byte{0xff}, 11), []byte{1, 1, 0, 0})),
	} {
		if _, err := readBlock(goldenID, value); !errors.Is(err, errDamaged) {
			t.Errorf("usage, %s: %v", name, err)
		}
	}
}

func TestReadRecordKeepsNothingOfTheStore(t *testing.T) {
	for name, golden := range goldenRecords {
		value := unhex(golden.stored)
		got, err := decodeRecord(goldenID, value)
		clear(value)
		if err != nil || !reflect.DeepEqual(*got, golden.record) {
			t.Errorf("%s changed with the bytes that it was read from", name)
		}
	}
	for name, golden := range goldenUsages {
		value := unhex(golden.stored)
		got, _ := readBlock(goldenID, value)
		if clear(value); !slices.Equal(got, golden.usages) {
			t.Errorf("usage %s changed with the bytes that it was read from", name)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, golden := range goldenRecords {
		f.Add(goldenID[:], unhex(golden.stored))
	}
	for _, golden := range goldenUsages {
		f.Add(goldenID[:], unhex(golden.stored))
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, under, value []byte) {
		var id ID
		copy(id[:], under)
		unsealed := value[:max(0, len(value)-4)]
		for _, sealed := range [][]byte{value, seal(id, bytes.Clone(unsealed))} {
			if r, err := decodeRecord(id, sealed); err == nil {
				if again, err := decodeRecord(id, r.encode()); err != nil || !reflect.DeepEqual(again, r) {
					t.Errorf("%x is read as %+v, and that as %+v, %v", sealed, r, again, err)
				}
			}
			if u, err := readBlock(id, sealed); err == nil {
				if again, err := readBlock(id, storedBlock(id, u)); err != nil || !slices.Equal(again, u) {
					t.Errorf("%x is read as %+v, and that as %+v, %v", sealed, u, again, err)
				}
			}
		}
	})
}
