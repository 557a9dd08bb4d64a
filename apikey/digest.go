package apikey

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// algorithm says how the digest of a secret was made. It stands in every
// record, so that another one can be added without ending a key's life.
type algorithm uint8

const (
	// algorithmSHA256 is SHA-256 of the secret's 43 characters, one block. A
	// secret has 256 random bits, so a slow hash would add nothing but load.
	algorithmSHA256 algorithm = 1
	// algorithmPeppered is HMAC-SHA-256 (RFC 2104) of the same under a
	// pepper, for those who want a stolen store to be useless even for
	// telling whether a token that turned up elsewhere was ever in it.
	algorithmPeppered algorithm = 2

	// Of the whole of a token that was made elsewhere: SHA-256, the first
	// half of SHA-512, HMAC-SHA-256 under a secret of those who made it, and
	// HMAC-SHA-256 under a pepper.
	algorithmForeignSHA256   algorithm = 3
	algorithmForeignSHA512   algorithm = 4
	algorithmForeignHMAC     algorithm = 5
	algorithmForeignPeppered algorithm = 6

	// algorithmTrace is HMAC-SHA-256 under a pepper of another digest. It is not
	// one of a token, and authenticates nobody.
	algorithmTrace algorithm = 7
)

func (a algorithm) known() bool { return a >= algorithmSHA256 && a <= algorithmForeignPeppered }

// foreign reports whether the token was made elsewhere, so that its key is found
// by the digest.
func (a algorithm) foreign() bool { return a >= algorithmForeignSHA256 }

// digest is what the store keeps of a secret.
type digest struct {
	algorithm algorithm
	pepper    pepperID // zero: made without one
	sum       [sha256.Size]byte
}

// peppers are the secrets of one configuration: the first one is used for new
// digests. Without any, digests have no pepper.
type peppers []*pepper

// pepperID tells peppers apart and says nothing about them.
type pepperID uint32

func (id pepperID) String() string { return fmt.Sprintf("%08x", uint32(id)) }

// pepper is a secret, as the two blocks that HMAC begins its hashes with.
type pepper struct {
	id           pepperID
	inner, outer [sha256.BlockSize]byte
}

// MinPepperLength is the shortest pepper that is accepted, in bytes.
const MinPepperLength = 16

func newPepper(secret []byte) *pepper {
	p := new(pepper)
	key := secret
	if len(key) > sha256.BlockSize {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	copy(p.inner[:], key)
	copy(p.outer[:], key)
	for i := range p.inner {
		p.inner[i] ^= 0x36
		p.outer[i] ^= 0x5c
	}
	name := p.sum("caddy-apikeys pepper id")
	p.id = pepperID(max(binary.BigEndian.Uint32(name[:]), 1))
	return p
}

// sum is HMAC-SHA-256 of a short text. Package crypto/hmac makes the same and
// allocates, which every request would pay for.
func (p *pepper) sum(text string) [sha256.Size]byte {
	var block [sha256.BlockSize + secretDigits]byte
	return p.sumIn(block[:], text)
}

// sumToken is sum of a text of up to MaxTokenLength bytes.
func (p *pepper) sumToken(text string) [sha256.Size]byte {
	var block [sha256.BlockSize + MaxTokenLength]byte
	return p.sumIn(block[:], text)
}

func (p *pepper) sumIn(block []byte, text string) [sha256.Size]byte {
	copy(block, p.inner[:])
	n := sha256.BlockSize + copy(block[sha256.BlockSize:], text)
	inner := sha256.Sum256(block[:n])
	copy(block, p.outer[:])
	n = sha256.BlockSize + copy(block[sha256.BlockSize:], inner[:])
	return sha256.Sum256(block[:n])
}

// digestOf makes the digest of a secret for a new record.
func (all peppers) digestOf(secret string) digest {
	if len(all) == 0 {
		return digest{algorithm: algorithmSHA256, sum: sha256.Sum256(bytesOf(secret))}
	}
	return digest{algorithm: algorithmPeppered, pepper: all[0].id, sum: all[0].sum(secret)}
}

// outdated reports whether new digests are made in another way than d.
func (all peppers) outdated(d *digest) bool {
	if len(all) == 0 {
		return false // without its pepper a digest cannot be made again later
	}
	return d.algorithm != algorithmPeppered || d.pepper != all[0].id
}

// can reports whether the pepper of a digest is there, if it has one.
func (all peppers) can(d *digest) bool {
	return d.algorithm != algorithmPeppered || all.find(d.pepper) != nil
}

// match reports, in constant time, whether d is the digest of secret.
func (all peppers) match(d *digest, secret string) bool {
	var sum [sha256.Size]byte
	switch d.algorithm {
	case algorithmSHA256:
		sum = sha256.Sum256(bytesOf(secret))
	case algorithmPeppered:
		p := all.find(d.pepper)
		if p == nil {
			return false
		}
		sum = p.sum(secret)
	default:
		return false
	}
	return sameSum(&sum, &d.sum)
}

// sameSum is subtle.ConstantTimeCompare, but eight bytes at a time: every request
// pays for it.
func sameSum(a, b *[sha256.Size]byte) bool {
	var difference uint64
	for i := 0; i < len(a); i += 8 {
		difference |= binary.NativeEndian.Uint64(a[i:]) ^ binary.NativeEndian.Uint64(b[i:])
	}
	return difference == 0
}

// equal reports, in constant time, whether two digests are one and the same.
func (d *digest) equal(other *digest) bool {
	return d.algorithm == other.algorithm && d.pepper == other.pepper && sameSum(&d.sum, &other.sum)
}

func (all peppers) find(id pepperID) *pepper {
	for _, p := range all {
		if p.id == id {
			return p
		}
	}
	return nil
}
