package apikey

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// Issued is a new key and its token.
type Issued struct {
	Key Key
	// Token is the plaintext. It is shown once and kept nowhere.
	Token string
}

// ErrQuota says that the organization has as many active keys as it may have.
var ErrQuota = errors.New("the organization has as many active keys as it may have")

// Issue makes a key. It refuses with a *FieldError, ErrScope, ErrCaller,
// ErrQuota, or, for a call that was made before, *Replayed or ErrOnceReused; with
// any other error no token is known to anybody, though the record of a key may
// have been left behind.
func (k *Keyring) Issue(ctx context.Context, by Principal, what Issue) (Issued, error) {
	made, err := k.IssueMany(ctx, by, []Issue{what})
	if err != nil {
		return Issued{}, err
	}
	return made[0], nil
}

// IssueMany makes keys as Issue does, all of them or none, in one write. That is
// much faster than one by one, up to some thousand at once; past that it keeps
// other changes waiting for too long.
func (k *Keyring) IssueMany(ctx context.Context, by Principal, what []Issue) ([]Issued, error) {
	if by.Scope != ScopeReadWrite {
		return nil, ErrScope
	}
	now := k.clock()
	records, made := make([]*record, len(what)), make([]Issued, len(what))
	for i := range what {
		r, err := k.newRecord(by, what[i], now)
		if err != nil {
			return nil, cmp.Or(k.madeBefore(ctx, by, what[i].Once, now), err)
		}
		records[i], made[i] = r, k.mint(r, now)
	}
	err := k.update(ctx, "issue", func(tx Tx) error {
		if err := checkCaller(tx, by, now); err != nil {
			return err
		}
		for i, r := range records {
			if err := what[i].Once.claim(tx, by, r.ID, now); err != nil {
				return err
			}
		}
		return k.putNew(tx, records, now, 0)
	})
	if err != nil {
		return nil, refusalOr("issuing a key", err)
	}
	for i := range made {
		k.observer.Changed(ctx, Change{Kind: ChangeIssued, Key: made[i].Key, By: by})
	}
	return made, nil
}

// mint gives a record its id and its secret.
func (k *Keyring) mint(r *record, now time.Time) Issued {
	r.ID = newID(now)
	r.CreatedAt = r.ID.time()
	r.Prefix = k.policy.Prefix
	token, secret := newToken(r.Prefix, r.ID)
	r.digest = k.peppers.digestOf(secret)
	return Issued{Key: r.Key, Token: token}
}

// putNew writes the records of new keys of one organization, unless an earlier
// run of the same write has. So many active keys are replaced by them.
func (k *Keyring) putNew(tx Tx, records []*record, now time.Time, replaced int) error {
	var fresh []*record
	for _, r := range records {
		there, err := tx.Get(TableKeys, r.ID[:])
		if err != nil {
			return err
		}
		if there == nil { // else by an earlier run, and it may have been changed since
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := k.checkQuota(tx, fresh[0].OrganizationID, len(fresh)-replaced, now); err != nil {
		return err
	}
	for _, r := range fresh {
		if err := tx.Put(TableOrganizations, organizationKey(r.OrganizationID, r.ID), []byte{1}); err != nil {
			return err
		}
		if err := tx.Put(TableKeys, r.ID[:], r.encode()); err != nil {
			return err
		}
		if err := r.countDigest(tx, 1); err != nil {
			return err
		}
	}
	return errors.Join(count(tx, countIssued, int64(len(fresh))), count(tx, countLive(fresh[0].OrganizationID), int64(len(fresh))))
}

// checkQuota refuses more keys than an organization may have. Keys that were
// rotated and have not ended yet are counted apart, and there may be as many of
// them: a whole fleet can be rotated at the limit, but nobody can go on for ever.
// A rotation brings no more keys, so only those are looked at.
//
// The count of live keys includes expired ones, so the keys are only looked at
// when it is too high.
func (k *Keyring) checkQuota(tx Reader, organization string, more int, now time.Time) error {
	if k.policy.MaxKeys == 0 {
		return nil
	}
	if more > 0 {
		room, err := k.room(tx, organization, more, now)
		if err == nil && room < more {
			return ErrQuota
		}
		return err
	}
	live, err := counted(tx, countLive(organization))
	if err != nil || int(live) <= k.policy.MaxKeys {
		return err
	}
	_, ending, err := k.countActive(tx, organization, now, func(_, ending int) bool { return ending > k.policy.MaxKeys })
	if err == nil && ending > k.policy.MaxKeys {
		return ErrQuota
	}
	return err
}

// room returns how many more active keys an organization may have, or, when it may
// have enough of them, perhaps just that.
func (k *Keyring) room(tx Reader, organization string, enough int, now time.Time) (int, error) {
	if k.policy.MaxKeys == 0 {
		return enough, nil
	}
	live, err := counted(tx, countLive(organization))
	if err != nil || k.policy.MaxKeys-int(live) >= enough {
		return enough, err
	}
	active, _, err := k.countActive(tx, organization, now, func(active, _ int) bool { return active >= k.policy.MaxKeys })
	return max(k.policy.MaxKeys-active, 0), err
}

// countActive looks at an organization's keys until done says that it has counted
// enough active ones, or enough that were rotated and have not ended.
func (k *Keyring) countActive(tx Reader, organization string, now time.Time, done func(active, ending int) bool) (active, ending int, err error) {
	var failed error
	err = scanOrganization(tx, organization, ID{}, 0, func(id ID) bool {
		var r *record
		if r, failed = getRecord(tx, id); failed != nil {
			return false
		}
		switch {
		case r == nil || !r.Active(now):
		case r.Rotated():
			ending++
		default:
			active++
		}
		return !done(active, ending)
	})
	return active, ending, errors.Join(err, failed)
}

// newRecord checks what a key is to be, and names its owner.
func (k *Keyring) newRecord(by Principal, what Issue, now time.Time) (*record, error) {
	r := &record{Key: Key{
		OrganizationID: by.OrganizationID, Name: what.Name, Description: what.Description, Scope: what.Scope,
		CreatedBy: by.ID(), MintedBy: by.KeyID,
	}}
	switch {
	case what.UserID != "" && !by.Operator:
		return nil, &FieldError{"userId", "cannot be chosen: the key belongs to who asks for it"}
	case what.ServiceAccountID != "": // and not to the user
		r.ServiceAccountID = what.ServiceAccountID
	case by.Operator && what.UserID == "":
		return nil, &FieldError{"userId", "is required, or serviceAccountId: a key has an owner"}
	case by.Operator:
		r.UserID = what.UserID
	default:
		r.UserID, r.ServiceAccountID = by.UserID, by.ServiceAccountID
	}
	if err := k.checkTexts(r); err != nil {
		return nil, err
	}
	if err := k.checkIdentity("organization", r.OrganizationID); err != nil {
		return nil, err
	}
	field := "userId"
	if r.ServiceAccountID != "" {
		field = "serviceAccountId"
	}
	if err := k.checkIdentity(field, r.owner()); err != nil {
		return nil, err
	}
	var err error
	r.ExpiresAt, err = k.policy.endOfLife(what.ExpiresAt, now)
	return r, err
}

// checkTexts refuses a name or a description that nobody should see.
func (k *Keyring) checkTexts(r *record) error {
	if err := checkName(r.Name); err != nil {
		return err
	}
	if err := checkText("description", r.Description, MaxDescriptionLength); err != nil {
		return err
	}
	if err := k.checkNoToken("name", r.Name); err != nil {
		return err
	}
	return k.checkNoToken("description", r.Description)
}

func (k *Keyring) checkIdentity(field, id string) error {
	if err := checkIdentity(field, id); err != nil {
		return err
	}
	return k.checkNoToken(field, id)
}

func (k *Keyring) checkNoToken(field, text string) error {
	if containsToken(text, k.prefixes) {
		return &FieldError{field, "holds a token; revoke that key if others have seen it"}
	}
	return nil
}
