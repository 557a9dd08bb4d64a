package apikey

import (
	"crypto/sha256"
	"encoding/binary"
)

// algorithm says how the digest of a secret was made. It stands in every
// record, so that another one can be added without ending a key's life.
type algorithm uint8

// algorithmSHA256 is SHA-256 of the secret's 43 characters, one block. A secret
// has 256 random bits, so a slow hash would add nothing but load.
const algorithmSHA256 algorithm = 1

// digest is what the store keeps of a secret.
type digest struct {
	algorithm algorithm
	sum       [sha256.Size]byte
}

func digestOf(secret string) digest {
	return digest{algorithmSHA256, sha256.Sum256(bytesOf(secret))}
}

// matches reports, in constant time, whether d is the digest of secret.
func (d *digest) matches(secret string) bool {
	if d.algorithm != algorithmSHA256 {
		return false
	}
	sum := sha256.Sum256(bytesOf(secret))
	// As subtle.ConstantTimeCompare, but eight bytes at a time.
	var difference uint64
	for i := 0; i < len(sum); i += 8 {
		difference |= binary.NativeEndian.Uint64(sum[i:]) ^ binary.NativeEndian.Uint64(d.sum[i:])
	}
	return difference == 0
}
