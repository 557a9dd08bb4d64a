package apikey

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

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
// has an error for each key that is not acceptable (*FieldError), is there already
// (ErrDuplicate) or is one too many for its organization (ErrQuota), and nil for
// those that were imported. With dry nothing is written. Some thousand keys at once
// are a good number. To anybody but the operator it is ErrScope.
func (k *Keyring) ImportMany(ctx context.Context, by Principal, keys []Import, dry bool) (refused []error, err error) {
	if !by.Operator {
		return nil, ErrScope
	}
	now := k.clock()
	records := make([]*record, len(keys))
	bad := make([]error, len(keys))
	wanted := make(map[string]int) // by organization
	for i := range keys {
		records[i], bad[i] = k.importRecord(&keys[i], now)
		wanted[keys[i].OrganizationID]++
	}
	work := func(tx Reader, put func(*record) error) error {
		refused = slices.Clone(bad)
		seen := make(map[digest]bool, len(records))
		room := make(map[string]int)
		for i, r := range records {
			if r == nil {
				continue
			}
			there, err := k.importedAs(tx, &r.digest)
			if err != nil {
				return err
			}
			if seen[r.digest] || !there.IsZero() && there != r.ID {
				refused[i] = ErrDuplicate
				continue
			}
			if there.IsZero() { // else an earlier run has put it there
				left, known := room[r.OrganizationID]
				if !known {
					if left, err = k.room(tx, r.OrganizationID, wanted[r.OrganizationID], now); err != nil {
						return err
					}
				}
				if room[r.OrganizationID] = left - 1; left <= 0 {
					refused[i] = ErrQuota
					continue
				}
				if err := put(r); err != nil {
					return err
				}
			}
			seen[r.digest] = true
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
			by.OrganizationID = r.OrganizationID
			k.observer.Changed(ctx, Change{Kind: ChangeImported, Key: r.Key, By: by})
		}
	}
	return refused, nil
}

// Room returns how many more active keys each of the organizations may have, as an
// import in several calls needs to know beforehand; nil where there is no limit.
func (k *Keyring) Room(ctx context.Context, organizations []string) (room map[string]int, err error) {
	if k.policy.MaxKeys == 0 {
		return nil, nil
	}
	now := k.clock()
	err = k.view(ctx, "import", func(tx Reader) error {
		room = make(map[string]int)
		for _, organization := range organizations {
			if _, known := room[organization]; known {
				continue
			}
			if room[organization], err = k.room(tx, organization, math.MaxInt, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, unavailable("counting the keys of organizations", err)
	}
	return room, nil
}

// A digest that was made anew at the first use of its key leaves a trace of the
// one that was imported, so that a second import of it is known for one. Under a
// pepper that is a digest of the digest: a stolen store must not tell more than
// before the import.
func (k *Keyring) traceOf(imported digest) digest {
	if len(k.peppers) == 0 {
		return imported
	}
	return k.peppers[0].trace(&imported)
}

func (p *pepper) trace(imported *digest) digest {
	return digest{algorithmTrace, p.id, p.sum(string(imported.foreignKey()))}
}

// tracesOf returns the trace to keep of each digest by which a token may have been
// imported, by that digest and by the traces that were kept under other peppers.
func (k *Keyring) tracesOf(token string) map[digest]digest {
	kinds := []foreignKind{{algorithm: algorithmForeignSHA256}, {algorithm: algorithmForeignSHA512}}
	for id := range k.foreign {
		kinds = append(kinds, foreignKind{algorithmForeignHMAC, id})
	}
	traces := make(map[digest]digest)
	for _, kind := range kinds {
		d, _ := k.digestForeign(kind, token)
		traces[d] = k.traceOf(d)
		for _, p := range k.peppers {
			traces[p.trace(&d)] = k.traceOf(d)
		}
	}
	return traces
}

// importedAs returns the key that was imported by a digest, or zero.
func (k *Keyring) importedAs(tx Reader, d *digest) (id ID, err error) {
	value, err := tx.Get(TableForeign, d.foreignKey())
	for i := 0; i < len(k.peppers) && value == nil && err == nil; i++ {
		trace := k.peppers[i].trace(d)
		value, err = tx.Get(TableForeign, trace.foreignKey())
	}
	copy(id[:], value)
	return id, err
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
		r.countDigest(tx, 1),
	)
}
