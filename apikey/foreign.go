package apikey

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Keys whose tokens were made elsewhere are found by the digest of the whole
// token, which is all that is known of it when it is imported. Only digests that
// have records are computed.

// foreignKind is one way in which digests of foreign tokens were made.
type foreignKind struct {
	algorithm algorithm
	secret    pepperID
}

// keyed reports whether the digests need a secret.
func (f foreignKind) keyed() bool {
	return f.algorithm == algorithmForeignHMAC || f.algorithm == algorithmForeignPeppered
}

// countName is the count of the records of a kind.
func (f foreignKind) countName() string {
	return fmt.Sprintf("foreign/%d/%s", f.algorithm, f.secret)
}

// foreignKey is the key of a digest in TableForeign.
func (d *digest) foreignKey() []byte {
	key := binary.BigEndian.AppendUint32([]byte{byte(d.algorithm)}, uint32(d.pepper))
	return append(key, d.sum[:]...)
}

// digestForeign makes the digest of a foreign token in a way that is known. It
// reports false when that needs a secret that is not configured.
func (k *Keyring) digestForeign(kind foreignKind, token string) (d digest, ok bool) {
	d = digest{algorithm: kind.algorithm, pepper: kind.secret}
	switch kind.algorithm {
	case algorithmForeignSHA256:
		d.sum = sha256.Sum256(bytesOf(token))
	case algorithmForeignSHA512:
		sum := sha512.Sum512(bytesOf(token))
		copy(d.sum[:], sum[:])
	case algorithmForeignHMAC, algorithmForeignPeppered:
		secret := k.peppers.find(kind.secret)
		if kind.algorithm == algorithmForeignHMAC {
			secret = k.foreign[kind.secret]
		}
		if secret == nil {
			return d, false
		}
		d.sum = secret.sumToken(token)
	}
	return d, true
}

// needed reports whether a key may be good whose digest is of this kind, when its
// secret is not configured.
func (f foreignKind) needed(tx Reader) (bool, error) {
	if f.algorithm != algorithmForeignPeppered {
		return true, nil
	}
	n, err := counted(tx, countPepper(f.secret))
	return n > 0, err
}

// missing says what is not configured, when a digest cannot be made.
func (f foreignKind) missing() error {
	if f.algorithm == algorithmForeignHMAC {
		return fmt.Errorf("keys were imported as hmac-sha256 with a secret that is not configured (its id is %s): configure it again with import_secret", f.secret)
	}
	return fmt.Errorf("imported keys need a pepper that is not configured (its id is %s): configure it, after the new one if it was changed", f.secret)
}

// ownForeign is how digests of foreign tokens are made here: the first one for
// new digests.
func (all peppers) ownForeign() (kinds []foreignKind) {
	if len(all) == 0 {
		return []foreignKind{{algorithm: algorithmForeignSHA256}}
	}
	for _, p := range all {
		kinds = append(kinds, foreignKind{algorithmForeignPeppered, p.id})
	}
	return kinds
}

// kind returns the i-th way to make the digest of a token when there are records
// of some kinds. Our own ways come first, and always: a digest may have been made
// anew. It reports false for one that has come before.
func (k *Keyring) kind(kinds []foreignKind, i int) (_ foreignKind, ok bool) {
	if i < len(k.ownKinds) {
		return k.ownKinds[i], true
	}
	kind := kinds[i-len(k.ownKinds)]
	return kind, !slices.Contains(k.ownKinds, kind)
}

// knownKinds are the kinds that have records, as they were read last.
type knownKinds struct {
	list    []foreignKind
	current bool // nothing has changed them since
}

// foreignKinds returns the kinds that have records. They are read once, and again
// after they have changed, or each time while nobody says what others write.
func (k *Keyring) foreignKinds(ctx context.Context) ([]foreignKind, error) {
	if known := k.kinds.Load(); known != nil && known.current && !k.index.closed.Load() {
		return known.list, nil
	}
	k.kindsMu.Lock()
	changes := k.kindChanges
	k.kindsMu.Unlock()
	kinds := []foreignKind{}
	err := k.view(ctx, "stats", func(tx Reader) error {
		kinds = kinds[:0]
		return tx.Scan(TableCounts, Range{From: []byte("foreign/"), To: []byte("foreign0")}, func(key, value []byte) bool {
			var a uint8
			var secret uint32
			if _, err := fmt.Sscanf(strings.TrimPrefix(string(key), "foreign/"), "%d/%08x", &a, &secret); err == nil && number(value) > 0 {
				kinds = append(kinds, foreignKind{algorithm(a), pepperID(secret)})
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	k.kindsMu.Lock()
	defer k.kindsMu.Unlock()
	if changes == k.kindChanges {
		k.kinds.Store(&knownKinds{kinds, true})
	}
	return kinds, nil
}

// kindsChanged is called when a kind may have got its first record, or lost its
// last. What was known is good enough for keys that the index has.
func (c *core) kindsChanged() {
	c.kindsMu.Lock()
	defer c.kindsMu.Unlock()
	c.kindChanges++
	if known := c.kinds.Load(); known != nil {
		c.kinds.Store(&knownKinds{list: known.list})
	}
}
