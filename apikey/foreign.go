package apikey

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Keys whose tokens were made elsewhere are found by the digest of the whole
// token, which is all that is known of it when it is imported. Only digests that
// have records are computed.

// foreignKind is one way in which digests of foreign tokens were made.
type foreignKind struct {
	algorithm algorithm
	secret    pepperID
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
		h := hmac.New(sha256.New, secret.secret)
		h.Write(bytesOf(token))
		h.Sum(d.sum[:0])
	}
	return d, true
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

// verifyForeign says whether a token that is not ours is that of an imported key.
func (k *Keyring) verifyForeign(ctx context.Context, token string) (Verdict, error) {
	kinds, err := k.foreignKinds(ctx)
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", err)
	}
	if len(kinds) == 0 || len(token) > MaxTokenLength {
		return Verdict{Reason: ReasonMalformed}, nil
	}
	var id ID
	var found digest
	missing := false
	err = k.view(ctx, "lookup", func(tx Reader) error {
		// Our own kinds first, and always: a digest may have been made anew.
		own := len(k.ownKinds)
		for i := range own + len(kinds) {
			kind := foreignKind{}
			if i < own {
				kind = k.ownKinds[i]
			} else if kind = kinds[i-own]; slices.Contains(k.ownKinds, kind) {
				continue
			}
			d, ok := k.digestForeign(kind, token)
			if !ok {
				missing = true
				continue
			}
			value, err := tx.Get(TableForeign, d.foreignKey())
			if err != nil {
				return err
			}
			if len(value) == len(id) {
				id, found = ID(value), d
				return nil
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", err)
	case !id.IsZero():
		return k.verifyID(ctx, id, found, token)
	case missing:
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", errNoPepper)
	}
	return Verdict{Reason: ReasonUnknown}, nil
}

// verifyID judges the key that a foreign token was found to belong to. The digest
// is compared once more: the key may be gone, or its digest made anew meanwhile.
func (k *Keyring) verifyID(ctx context.Context, id ID, found digest, token string) (v Verdict, err error) {
	var e entryView
	if k.index.find(id, &e) && e.digest == found {
		k.renewForeign(id, found, token)
		e.standing(&v, id, k.clock().UnixMilli())
		return v, nil
	}
	ticket := k.index.ticket(id)
	r, err := k.lookUp(ctx, id)
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, err
	}
	if r == nil {
		return Verdict{Reason: ReasonUnknown}, nil
	}
	switch d, ok := k.digestForeign(foreignKind{r.digest.algorithm, r.digest.pepper}, token); {
	case !ok:
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", errNoPepper)
	case d != r.digest:
		return Verdict{Reason: ReasonUnknown}, nil
	}
	k.renewForeign(id, r.digest, token)
	k.fillFrom(ticket, r).standing(&v, id, k.clock().UnixMilli())
	return v, nil
}

func (k *Keyring) renewForeign(id ID, from digest, token string) {
	own := k.ownKinds[0]
	if own == (foreignKind{from.algorithm, from.pepper}) {
		return
	}
	if to, ok := k.digestForeign(own, token); ok {
		k.renew(id, from, to)
	}
}

// foreignKinds returns the kinds that have records. They are read once, and again
// after they have changed.
func (k *Keyring) foreignKinds(ctx context.Context) ([]foreignKind, error) {
	if kinds := k.kinds.Load(); kinds != nil {
		return *kinds, nil
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
		k.kinds.Store(&kinds)
	}
	return kinds, nil
}

// kindsChanged is called when a kind may have got its first record.
func (c *core) kindsChanged() {
	c.kindsMu.Lock()
	defer c.kindsMu.Unlock()
	c.kindChanges++
	c.kinds.Store(nil)
}

// Import is a key that was made elsewhere.
type Import struct {
	Issue
	OrganizationID string
	// Algorithm is how Hash was made of the token: sha256, sha512 or
	// hmac-sha256.
	Algorithm string
	// Secret names the configured secret of hmac-sha256.
	Secret string
	// Hash is the digest of the whole token.
	Hash []byte
}

// ErrDuplicate says that a key with this digest is there already.
var ErrDuplicate = errors.New("a key with this hash is there already")

// importAlgorithms are the algorithms of Import, and how long their hashes are.
var importAlgorithms = map[string]struct {
	algorithm
	length int
}{
	"sha256":      {algorithmForeignSHA256, sha256.Size},
	"sha512":      {algorithmForeignSHA512, sha512.Size},
	"hmac-sha256": {algorithmForeignHMAC, sha256.Size},
}

// ImportMany makes keys for tokens that were made elsewhere, in one write. refused
// has an error for each key that is not acceptable (*FieldError) or is there
// already (ErrDuplicate), and nil for those that were imported. With dry nothing
// is written. Some thousand keys at once are a good number.
func (k *Keyring) ImportMany(ctx context.Context, keys []Import, dry bool) (refused []error, err error) {
	now := k.clock()
	records := make([]*record, len(keys))
	bad := make([]error, len(keys))
	for i := range keys {
		records[i], bad[i] = k.importRecord(&keys[i], now)
	}
	work := func(tx Reader, put func(*record) error) error {
		refused = slices.Clone(bad)
		seen := make(map[digest]bool, len(records))
		for i, r := range records {
			if r == nil {
				continue
			}
			value, err := tx.Get(TableForeign, r.digest.foreignKey())
			switch {
			case err != nil:
				return err
			case seen[r.digest] || value != nil && !bytes.Equal(value, r.ID[:]): // else by an earlier run
				refused[i] = ErrDuplicate
				continue
			}
			seen[r.digest] = true
			if value == nil {
				if err := put(r); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if dry {
		err = k.view(ctx, "import", func(tx Reader) error { return work(tx, func(*record) error { return nil }) })
	} else {
		err = k.update(ctx, "import", func(tx Tx) error { return work(tx, func(r *record) error { return r.importIn(tx) }) })
		k.kindsChanged()
	}
	if err != nil {
		return nil, unavailable("importing keys", err)
	}
	for i, r := range records {
		if !dry && refused[i] == nil {
			k.observer.Changed(ctx, Change{Kind: ChangeImported, Key: r.Key, By: Operator(r.OrganizationID)})
		}
	}
	return refused, nil
}

func (k *Keyring) importRecord(what *Import, now time.Time) (*record, error) {
	how, ok := importAlgorithms[what.Algorithm]
	if !ok {
		return nil, &FieldError{"algorithm", "must be sha256, sha512 or hmac-sha256"}
	}
	if len(what.Hash) != how.length {
		return nil, &FieldError{"hash", fmt.Sprintf("must have %d bytes for %s, as hexadecimal digits", how.length, what.Algorithm)}
	}
	r, err := k.newRecord(Operator(what.OrganizationID), what.Issue, now)
	if err != nil {
		return nil, err
	}
	r.digest.algorithm = how.algorithm
	copy(r.digest.sum[:], what.Hash)
	if how.algorithm == algorithmForeignHMAC {
		secret := k.foreignNames[what.Secret]
		if secret == nil {
			return nil, &FieldError{"secret", "must name a configured secret of hmac-sha256"}
		}
		r.digest.pepper = secret.id
	}
	r.ID = newID(now)
	r.CreatedAt = r.ID.time()
	return r, nil
}

func (r *record) importIn(tx Tx) error {
	return errors.Join(
		tx.Put(TableForeign, r.digest.foreignKey(), r.ID[:]),
		tx.Put(TableOrganizations, organizationKey(r.OrganizationID, r.ID), []byte{1}),
		tx.Put(TableKeys, r.ID[:], r.encode()),
		count(tx, countIssued, 1),
		count(tx, countLive(r.OrganizationID), 1),
		countDigest(tx, &r.digest, 1),
	)
}
