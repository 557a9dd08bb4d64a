package apikey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// record is a key as the store holds it. Its value is drawn here; texts are a
// length as uvarint and the bytes, times are Unix milliseconds as uvarint.
//
//	offset  bytes  what
//	0       1      version, 1
//	1       1-2    flags, below, as uvarint
//	...     1      algorithm of the digest
//	        32     digest of the secret
//	               pepper id: 4 bytes                with hasPepper
//	               prefix of the token, organization, owner, name: texts
//	               description: text                 with hasDescription
//	               created by: text                  with hasCreator
//	               key that minted it: 16 bytes      with hasMinter
//	               expires at: time                  with hasExpiry
//	               revoked at: time                  with hasRevocation
//	               key that replaced it: 16 bytes    with hasSuccessor
//	               why it was revoked: text          with hasCause
//	               imported digest: algorithm (1),   with hasImported
//	               secret id (4), digest (32)
//	-4      4      CRC-32C of the key id and all before
//
// The time of creation is in the key id.
type record struct {
	Key
	digest   digest
	imported digest // what is left of the digest it was imported by, see traceOf
}

const recordVersion = 1

const (
	flagReadWrite = 1 << iota
	flagServiceAccount
	hasDescription
	hasCreator // absent when the owner created the key itself
	hasMinter
	hasExpiry
	hasRevocation
	hasSuccessor
	hasPepper
	hasCause
	hasImported

	knownFlags = 1<<iota - 1
)

// errDamaged says that a stored value is not what was written. It counts as
// "could not find out".
var errDamaged = errors.New("record does not match its checksum")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the checksum that binds a value to the key it stands under.
func seal(id ID, value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, checksum(id[:], value))
}

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// unseal returns the value without its version and checksum. newest is the last
// version that is known.
func unseal(key, sealed []byte, newest byte) (value []byte, version byte, err error) {
	n := len(sealed) - 4
	if n < 1 || binary.BigEndian.Uint32(sealed[n:]) != checksum(key, sealed[:n]) {
		return nil, 0, errDamaged
	}
	if version = sealed[0]; version < 1 || version > newest {
		return nil, 0, fmt.Errorf("record has version %d, this program reads up to %d: a newer one wrote it", version, newest)
	}
	return sealed[1:n], version, nil
}

// owner returns the id of the user or service account that the key belongs to.
func (r *record) owner() string {
	if r.ServiceAccountID != "" {
		return r.ServiceAccountID
	}
	return r.UserID
}

func (r *record) encode() []byte {
	owner, flags := r.owner(), uint64(0)
	set := func(flag uint64, when bool) {
		if when {
			flags |= flag
		}
	}
	set(flagServiceAccount, r.ServiceAccountID != "")
	set(flagReadWrite, r.Scope == ScopeReadWrite)
	set(hasDescription, r.Description != "")
	set(hasCreator, r.CreatedBy != owner)
	set(hasMinter, !r.MintedBy.IsZero())
	set(hasExpiry, !r.ExpiresAt.IsZero())
	set(hasRevocation, !r.RevokedAt.IsZero())
	set(hasSuccessor, r.Rotated())
	set(hasPepper, r.digest.pepper != 0)
	set(hasCause, r.RevokedFor != "")
	set(hasImported, r.imported.algorithm != 0)

	b := make([]byte, 0, 160)
	b = binary.AppendUvarint(append(b, recordVersion), flags)
	b = append(b, byte(r.digest.algorithm))
	b = append(b, r.digest.sum[:]...)
	if flags&hasPepper != 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(r.digest.pepper))
	}
	b = appendText(b, r.Prefix)
	b = appendText(b, r.OrganizationID)
	b = appendText(b, owner)
	b = appendText(b, r.Name)
	if flags&hasDescription != 0 {
		b = appendText(b, r.Description)
	}
	if flags&hasCreator != 0 {
		b = appendText(b, r.CreatedBy)
	}
	if flags&hasMinter != 0 {
		b = append(b, r.MintedBy[:]...)
	}
	if flags&hasExpiry != 0 {
		b = binary.AppendUvarint(b, uint64(r.ExpiresAt.UnixMilli()))
	}
	if flags&hasRevocation != 0 {
		b = binary.AppendUvarint(b, uint64(r.RevokedAt.UnixMilli()))
	}
	if flags&hasSuccessor != 0 {
		b = append(b, r.ReplacedBy[:]...)
	}
	if flags&hasCause != 0 {
		b = appendText(b, r.RevokedFor)
	}
	if flags&hasImported != 0 {
		b = append(b, r.imported.foreignKey()...)
	}
	return seal(r.ID, b)
}

func decodeRecord(id ID, sealed []byte) (*record, error) {
	r := new(record)
	if err := r.decode(id[:], string(sealed)); err != nil { // one copy, for all texts
		return nil, err
	}
	return r, nil
}

// decode reads an empty record from what stands under key, an id. Its texts lie in
// sealed.
func (r *record) decode(key []byte, sealed string) error {
	id := ID(key)
	value, _, err := unseal(key, bytesOf(sealed), recordVersion)
	if err != nil {
		return fmt.Errorf("reading key %s: %w", id, err)
	}
	p := parser{rest: textOf(value)}
	r.ID, r.CreatedAt = id, id.time()
	flags := uint64(p.int())
	r.digest.algorithm = algorithm(p.byte())
	copy(r.digest.sum[:], p.take(len(r.digest.sum)))
	if flags&hasPepper != 0 {
		r.digest.pepper = pepperID(p.uint32())
	}
	r.Prefix = p.text()
	r.OrganizationID = p.text()
	owner := p.text()
	r.Name = p.text()
	if flags&flagServiceAccount != 0 {
		r.ServiceAccountID = owner
	} else {
		r.UserID = owner
	}
	if flags&flagReadWrite != 0 {
		r.Scope = ScopeReadWrite
	}
	if flags&hasDescription != 0 {
		r.Description = p.text()
	}
	r.CreatedBy = owner
	if flags&hasCreator != 0 {
		r.CreatedBy = p.text()
	}
	if flags&hasMinter != 0 {
		copy(r.MintedBy[:], p.take(len(r.MintedBy)))
	}
	if flags&hasExpiry != 0 {
		r.ExpiresAt = fromMillis(p.int())
	}
	if flags&hasRevocation != 0 {
		r.RevokedAt = fromMillis(p.int())
	}
	if flags&hasSuccessor != 0 {
		copy(r.ReplacedBy[:], p.take(len(r.ReplacedBy)))
	}
	if flags&hasCause != 0 {
		r.RevokedFor = p.text()
	}
	if flags&hasImported != 0 {
		r.imported.algorithm, r.imported.pepper = algorithm(p.byte()), pepperID(p.uint32())
		copy(r.imported.sum[:], p.take(len(r.imported.sum)))
	}
	if p.failed || len(p.rest) != 0 || flags > knownFlags || !IsIdentity(r.OrganizationID) || !IsIdentity(owner) {
		return fmt.Errorf("reading key %s: %w", id, errDamaged)
	}
	if !r.digest.algorithm.known() {
		return fmt.Errorf("reading key %s: its digest has algorithm %d, which this program does not know: a newer one wrote it",
			id, r.digest.algorithm)
	}
	return nil
}

// endless reports whether a stored record says that its key was not revoked and does
// not expire. It looks at no more of it than that takes.
func endless(sealed []byte) bool {
	if len(sealed) == 0 || sealed[0] != recordVersion {
		return false
	}
	flags, size := binary.Uvarint(sealed[1:])
	return size > 0 && flags&(hasExpiry|hasRevocation) == 0
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// parser takes values from the front of a record and remembers whether one was
// missing. What it hands out as text keeps the whole record in memory.
type parser struct {
	rest   string
	failed bool
}

func (p *parser) take(n int) string {
	if n < 0 || n > len(p.rest) {
		p.failed = true
		return ""
	}
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	return taken
}

func (p *parser) byte() byte {
	if b := p.take(1); b != "" {
		return b[0]
	}
	return 0
}

func (p *parser) int() int64 {
	n, size := binary.Uvarint(bytesOf(p.rest))
	if size <= 0 {
		p.failed = true
		return 0
	}
	p.rest = p.rest[size:]
	return int64(n)
}

func (p *parser) uint32() uint32 {
	if b := p.take(4); b != "" {
		return binary.BigEndian.Uint32(bytesOf(b))
	}
	return 0
}

func (p *parser) text() string { return p.take(int(p.int())) }
