package apikey

import (
	"cmp"
	"context"
)

// verifyForeign says whether a token that is not ours is that of an imported key.
// One that the index knows needs no store.
func (k *Keyring) verifyForeign(ctx context.Context, token string) (v Verdict, err error) {
	if len(token) > MaxTokenLength {
		return Verdict{Reason: ReasonMalformed}, nil
	}
	if known := k.kinds.Load(); known != nil && len(known.list) > 0 {
		for i := range len(k.ownKinds) + len(known.list) {
			kind, ok := k.kind(known.list, i)
			if !ok {
				continue
			}
			d, ok := k.digestForeign(kind, token)
			if !ok {
				continue
			}
			if id, e, ok := k.index.findDigest(&d); ok {
				e.standing(&v, id, k.clock().UnixMilli())
				k.renewForeign(&v, d, token)
				return v, nil
			}
		}
	}
	return k.verifyForeignStored(ctx, token)
}

func (k *Keyring) verifyForeignStored(ctx context.Context, token string) (Verdict, error) {
	kinds, err := k.foreignKinds(ctx)
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", err)
	}
	if len(kinds) == 0 {
		return Verdict{Reason: ReasonMalformed}, nil
	}
	var id ID
	var found digest
	var missing error
	err = k.view(ctx, "lookup", func(tx Reader) (err error) {
		missing, err = k.eachForeign(tx, kinds, token, func(d digest, of ID) bool {
			id, found = of, d
			return false
		})
		return err
	})
	switch {
	case err != nil:
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", err)
	case !id.IsZero():
		return k.verifyID(ctx, id, found, token)
	case missing != nil: // it may be one of those
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", missing)
	}
	return Verdict{Reason: ReasonUnknown}, nil
}

// eachForeign calls yield with each digest of a token that a key was imported by, and
// with that key, until it returns false. missing says why there may be more.
func (k *Keyring) eachForeign(tx Reader, kinds []foreignKind, token string, yield func(digest, ID) bool) (missing, err error) {
	for i := range len(k.ownKinds) + len(kinds) {
		kind, ok := k.kind(kinds, i)
		if !ok {
			continue
		}
		d, ok := k.digestForeign(kind, token)
		if !ok {
			if needed, err := kind.needed(tx); err != nil {
				return nil, err
			} else if needed {
				missing = kind.missing()
			}
			continue
		}
		value, err := tx.Get(TableForeign, d.foreignKey())
		if err != nil {
			return nil, err
		}
		if len(value) == len(ID{}) && !yield(d, ID(value)) {
			return nil, nil
		}
	}
	return missing, nil
}

// foreignIDs returns the keys that a foreign token was imported for.
func (k *Keyring) foreignIDs(ctx context.Context, token string) (ids []ID, _ error) {
	kinds, err := k.foreignKinds(ctx)
	var missing error
	if err == nil {
		err = k.view(ctx, "lookup", func(tx Reader) (err error) {
			ids = nil
			missing, err = k.eachForeign(tx, kinds, token, func(_ digest, id ID) bool {
				ids = append(ids, id)
				return true
			})
			return err
		})
	}
	if err = cmp.Or(err, missing); err != nil {
		return nil, unavailable("looking up a foreign token", err)
	}
	return ids, nil
}

// verifyID judges the key that a foreign token was found to belong to. The digest
// is compared once more: the key may be gone, or its digest made anew meanwhile.
func (k *Keyring) verifyID(ctx context.Context, id ID, found digest, token string) (v Verdict, err error) {
	var e entryView
	if k.index.find(id, &e) && e.digest.equal(&found) {
		k.index.keepDigest(&found, e.slot)
		e.standing(&v, id, k.clock().UnixMilli())
		k.renewForeign(&v, found, token)
		return v, nil
	}
	ticket := k.index.ticket(id)
	l, err := k.lookUp(ctx, id)
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, err
	}
	defer l.end()
	if !l.found {
		return Verdict{Reason: ReasonUnknown}, nil
	}
	stored := &l.entry
	kind := foreignKind{stored.digest.algorithm, stored.digest.pepper}
	switch d, ok := k.digestForeign(kind, token); {
	case !ok:
		return Verdict{Reason: ReasonUnavailable}, unavailable("looking up a foreign token", kind.missing())
	case !d.equal(&stored.digest):
		return Verdict{Reason: ReasonUnknown}, nil
	}
	stored.slot = k.index.fill(ticket, stored)
	k.index.keepDigest(&stored.digest, stored.slot)
	stored.standing(&v, id, k.clock().UnixMilli())
	k.renewForeign(&v, stored.digest, token)
	return v, nil
}

// renewForeign lets the digest of a token be made anew, unless the key was revoked.
// One with a secret is never replaced by one without: tokens of others may be short
// enough to be guessed.
func (k *Keyring) renewForeign(v *Verdict, from digest, token string) {
	own, is := k.ownKinds[0], foreignKind{from.algorithm, from.pepper}
	if own == is || is.keyed() && !own.keyed() || v.Reason == ReasonRevoked {
		return
	}
	if to, ok := k.digestForeign(own, token); ok {
		k.renew(v.KeyID, renewal{from, to, k.tracesOf(token)})
	}
}
