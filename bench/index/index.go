// Package index compares the index of the Keyring with the obvious ones: a map in
// shards with a lock each, sync.Map, and the cache otter. It is a module of its
// own, so that otter is nobody else's dependency.
//
//	go test -bench . -benchmem -cpu 1,2
//
// Ours is measured as Keyring.Verify, from the token to the verdict. The others
// do what Verify does, with another structure in the place of the index; "none"
// has one record and no structure, so that the difference to it is the lookup.
package index

import (
	"crypto/sha256"
	"crypto/subtle"
	"hash/crc32"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// record is what a check needs of a key, as an object of its own.
type record struct {
	digest             [sha256.Size]byte
	expires            int64
	organization, user string
	scope              apikey.Scope
	revoked            bool
}

// lookup is a structure that finds records.
type lookup interface {
	get(apikey.ID) (*record, bool)
	put(apikey.ID, *record)
}

// none finds the one record it has, whatever it is asked for.
type none struct{ one *record }

func (n *none) get(apikey.ID) (*record, bool) { return n.one, n.one != nil }
func (n *none) put(_ apikey.ID, r *record)    { n.one = r }

const shards = 256

// shardedMap is a map in shards, chosen by random bits of the id.
type shardedMap [shards]struct {
	mu      sync.RWMutex
	records map[apikey.ID]*record
	_       [32]byte // keeps neighbours off the same cache line
}

func newShardedMap() *shardedMap {
	m := new(shardedMap)
	for i := range m {
		m[i].records = make(map[apikey.ID]*record)
	}
	return m
}

func (m *shardedMap) get(id apikey.ID) (*record, bool) {
	s := &m[id[15]]
	s.mu.RLock()
	r, ok := s.records[id]
	s.mu.RUnlock()
	return r, ok
}

func (m *shardedMap) put(id apikey.ID, r *record) {
	s := &m[id[15]]
	s.mu.Lock()
	s.records[id] = r
	s.mu.Unlock()
}

type syncMap struct{ records sync.Map }

func (m *syncMap) get(id apikey.ID) (*record, bool) {
	r, ok := m.records.Load(id)
	if !ok {
		return nil, false
	}
	return r.(*record), true
}

func (m *syncMap) put(id apikey.ID, r *record) { m.records.Store(id, r) }

type otterCache struct {
	records *otter.Cache[apikey.ID, *record]
}

func newOtterCache(capacity int) *otterCache {
	return &otterCache{otter.Must(&otter.Options[apikey.ID, *record]{MaximumSize: capacity})}
}

func (c *otterCache) get(id apikey.ID) (*record, bool) { return c.records.GetIfPresent(id) }
func (c *otterCache) put(id apikey.ID, r *record)      { c.records.Set(id, r) }

// The parts of a token of the default prefix.
const (
	prefix       = "ak_"
	idEnd        = len(prefix) + 22
	secretEnd    = idEnd + 43
	tokenLength  = secretEnd + 6
	alphabet     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	unknownDigit = 0xff
)

var digitOf = func() (table [256]uint8) {
	for i := range table {
		table[i] = unknownDigit
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = uint8(i)
	}
	return table
}()

// verify is Verify over another structure: the same parts of the token are read,
// the same sums computed, and the same verdict is made.
func verify(in lookup, token string, clock apikey.Clock) (v apikey.Verdict) {
	id, secret, ok := parse(token)
	if !ok {
		return apikey.Verdict{Reason: apikey.ReasonMalformed}
	}
	r, ok := in.get(id)
	if !ok {
		return apikey.Verdict{Reason: apikey.ReasonUnknown}
	}
	sum := sha256.Sum256(bytesOf(secret))
	if subtle.ConstantTimeCompare(sum[:], r.digest[:]) != 1 {
		return apikey.Verdict{Reason: apikey.ReasonUnknown}
	}
	v = apikey.Verdict{KeyID: id, OrganizationID: r.organization, UserID: r.user, Scope: r.scope}
	if r.expires != 0 {
		v.ExpiresAt = time.UnixMilli(r.expires).UTC()
	}
	now := clock().UnixMilli()
	switch {
	case r.revoked:
		v.Reason = apikey.ReasonRevoked
	case r.expires != 0 && now >= r.expires:
		v.Reason = apikey.ReasonExpired
	}
	return v
}

func parse(token string) (id apikey.ID, secret string, ok bool) {
	if len(token) != tokenLength || !strings.HasPrefix(token, prefix) {
		return id, "", false
	}
	sum := uint64(0)
	for i := secretEnd; i < tokenLength; i++ {
		sum = sum*62 + uint64(digitOf[token[i]])
	}
	if sum != uint64(crc32.ChecksumIEEE(bytesOf(token[:secretEnd]))) {
		return id, "", false
	}
	var text [apikey.IDLength]byte
	copy(text[copy(text[:], "key_"):], token[len(prefix):idEnd])
	if id, ok = apikey.ParseID(unsafe.String(&text[0], len(text))); !ok {
		return id, "", false
	}
	secret = token[idEnd:secretEnd]
	all := uint8(0)
	for i := range len(secret) {
		all |= digitOf[secret[i]]
	}
	return id, secret, all != unknownDigit
}

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
