package apikey

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
)

// Exported is a key as it leaves the store.
type Exported struct {
	Key Key
	// Algorithm and Hash tell of the digest that the store has: "sha256" and
	// "hmac-sha256" of the 43 characters of a token before its last six, or,
	// with "token-" before them, of the whole of a token that was made
	// elsewhere; of "token-sha512-256" it is the first 256 bits of SHA-512. Pepper is the id of the pepper, if there is one.
	Algorithm string
	Hash      string
	Pepper    string
}

var algorithmNames = map[algorithm]string{
	algorithmSHA256:          "sha256",
	algorithmPeppered:        "hmac-sha256",
	algorithmForeignSHA256:   "token-sha256",
	algorithmForeignSHA512:   "token-sha512-256", // the first 256 bits
	algorithmForeignHMAC:     "token-hmac-sha256",
	algorithmForeignPeppered: "token-hmac-sha256",
}

// exportSlice is how many keys are read at a time.
const exportSlice = 1000

// Export calls yield for every key of the store, oldest first, until it returns an
// error. The store goes on changing meanwhile: what is yielded is as of then.
func (k *Keyring) Export(ctx context.Context, yield func(Exported) error) error {
	for from := (ID{}); ; {
		var all []Exported
		err := k.view(ctx, "export", func(tx Reader) error {
			all = all[:0]
			var failed error
			err := tx.Scan(TableKeys, Range{From: from[:], Limit: exportSlice}, func(key, value []byte) bool {
				if len(key) != len(from) {
					return true
				}
				var r *record
				if r, failed = decodeRecord(ID(key), value); failed != nil {
					return false
				}
				all = append(all, exported(r))
				return len(all) < exportSlice
			})
			if err != nil || failed != nil {
				return errors.Join(err, failed)
			}
			for i := range all {
				if _, err := addReadableUsage(tx, &all[i].Key, nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return unavailable("exporting keys", err)
		}
		for i := range all {
			if err := yield(all[i]); err != nil {
				return err
			}
		}
		if len(all) < exportSlice {
			return nil
		}
		from = all[len(all)-1].Key.ID.next()
	}
}

func exported(r *record) Exported {
	e := Exported{Key: r.Key, Algorithm: algorithmNames[r.digest.algorithm], Hash: hex.EncodeToString(r.digest.sum[:])}
	if r.digest.pepper != 0 {
		e.Pepper = r.digest.pepper.String()
	}
	return e
}

// ErrNoSnapshot says that the driver of the store cannot copy it.
var ErrNoSnapshot = errors.New("the storage driver cannot copy its store")

// Snapshot brings all usage to the store and copies it, as a Snapshotter does.
func (k *Keyring) Snapshot(ctx context.Context, start func(size int64) (io.Writer, error)) error {
	snapshotter, ok := k.store.(Snapshotter)
	if !ok {
		return ErrNoSnapshot
	}
	// A copy without the last uses is better than none.
	_ = k.Flush(ctx)
	return snapshotter.Snapshot(ctx, start)
}
