package apikey

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Once identifies a call that makes a key, so that a client that got no answer
// can repeat it (the Idempotency-Key header). It is remembered for 24 hours.
type Once struct {
	// Route tells calls of different kinds apart.
	Route string
	// Key is what the client calls the call, 1 to 255 visible ASCII
	// characters.
	Key string
	// Fingerprint is a digest of all that the call asks for.
	Fingerprint [sha256.Size]byte
}

// onceLife is how long a call is remembered.
const onceLife = 24 * time.Hour

// MaxOnceKey is the longest key of a Once, in bytes.
const MaxOnceKey = 255

// Replayed says that a call was made before: its key is there, its token was
// shown then.
type Replayed struct{ KeyID ID }

// Error implements error.
func (r *Replayed) Error() string {
	return fmt.Sprintf("this call was made before, and made the key %s", r.KeyID)
}

// ErrOnceReused says that a Once was used before for a call that asked for
// something else.
var ErrOnceReused = errors.New("the idempotency key was used for another call")

// name is the record of a call in TableCalls. Clients choose their keys, so each
// caller has his own: a stranger's key tells nothing.
func (o *Once) name(by Principal) []byte {
	h := sha256.New()
	kind := "user"
	switch {
	case by.Operator:
		kind = "operator"
	case by.ServiceAccountID != "":
		kind = "service account"
	}
	for _, part := range []string{by.OrganizationID, kind, by.ID(), o.Route, o.Key} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// A call is stored as: version (1 byte), id of the key that it made (16),
// fingerprint (32), time in Unix milliseconds (uvarint).
const callVersion = 1

func callTime(value []byte) (made ID, fingerprint []byte, at time.Time, ok bool) {
	if len(value) < 1+16+sha256.Size+1 || value[0] != callVersion {
		return made, nil, at, false
	}
	p := parser{rest: string(value[17+sha256.Size:])}
	at = fromMillis(p.int())
	return ID(value[1:17]), value[17 : 17+sha256.Size], at, !p.failed
}

// before refuses with *Replayed or ErrOnceReused when the call was made before, but
// not when that was an earlier run of the very write that makes a key now.
func (o *Once) before(tx Reader, by Principal, makes ID, now time.Time) error {
	value, err := tx.Get(TableCalls, o.name(by))
	if err != nil {
		return err
	}
	if made, fingerprint, at, ok := callTime(value); ok && now.Sub(at) < onceLife && made != makes {
		if string(fingerprint) != string(o.Fingerprint[:]) {
			return ErrOnceReused
		}
		return &Replayed{made}
	}
	return nil
}

// madeBefore says that a call was made before which is not acceptable any more: its
// end may have passed since, and yet it has made a key.
func (k *Keyring) madeBefore(ctx context.Context, by Principal, o *Once, now time.Time) error {
	if o == nil {
		return nil
	}
	err := k.view(ctx, "issue", func(tx Reader) error { return o.before(tx, by, ID{}, now) })
	return refusalOr("looking for an earlier call", err)
}

// claim notes, inside the write, that the call makes a key, unless it was made
// before.
func (o *Once) claim(tx Tx, by Principal, makes ID, now time.Time) error {
	if o == nil {
		return nil
	}
	if err := o.before(tx, by, makes, now); err != nil {
		return err
	}
	value := append([]byte{callVersion}, makes[:]...)
	value = append(value, o.Fingerprint[:]...)
	return tx.Put(TableCalls, o.name(by), binary.AppendUvarint(value, uint64(now.UnixMilli())))
}

// forgetCalls removes calls that are older than they need to be, a slice at a
// time.
func (k *Keyring) forgetCalls(ctx context.Context, now time.Time) error {
	for from := []byte{0}; ; {
		var old [][]byte
		var seen int
		var next []byte
		err := k.store.View(ctx, func(tx Reader) error {
			old, seen = nil, 0
			return tx.Scan(TableCalls, Range{From: from, Limit: censusSlice}, func(key, value []byte) bool {
				seen++
				next = append(append([]byte{}, key...), 0)
				if _, _, at, ok := callTime(value); !ok || now.Sub(at) >= onceLife {
					old = append(old, append([]byte{}, key...))
				}
				return seen < censusSlice
			})
		})
		if err == nil && len(old) > 0 {
			err = k.store.Update(ctx, func(tx Tx) error {
				for _, key := range old {
					value, err := tx.Get(TableCalls, key)
					if err != nil {
						return err
					}
					if _, _, at, ok := callTime(value); !ok || now.Sub(at) >= onceLife { // not used again meanwhile
						if err := tx.Delete(TableCalls, key); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
		if err != nil || seen < censusSlice {
			return err
		}
		from = next
	}
}
