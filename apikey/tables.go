package apikey

import (
	"encoding/binary"
	"errors"
)

// getRecord returns the record of a key, or nil.
func getRecord(tx Reader, id ID) (*record, error) {
	value, err := tx.Get(TableKeys, id[:])
	if err != nil || value == nil {
		return nil, err
	}
	return decodeRecord(id, value)
}

// getOwn returns the record of a key that the caller may know of. The operator
// may name an organization or none.
func getOwn(tx Reader, by Principal, id ID) (*record, error) {
	r, err := getRecord(tx, id)
	if err != nil {
		return nil, err
	}
	if r == nil || r.OrganizationID != by.OrganizationID && !by.anywhere() {
		return nil, ErrNotFound
	}
	return r, nil
}

// addUsage gives a key its usage: what the store has, and what is not there yet.
func addUsage(tx Reader, key *Key, pending []pendingUse) (err error) {
	key.Usage, err = usageOf(tx, key.ID)
	for i := range pending {
		pending[i].addTo(&key.Usage)
	}
	return err
}

// addReadableUsage is addUsage for calls that matter more than usage: one record of
// usage is of many keys, and when it is damaged all of them must still be listed,
// changed and revoked.
func addReadableUsage(tx Reader, key *Key, pending []pendingUse) (known bool, _ error) {
	err := addUsage(tx, key, pending)
	if errors.Is(err, errDamaged) {
		return false, nil
	}
	return err == nil, err
}

// organizationKey is the key of a record in TableOrganizations: the id of the
// organization, a zero byte, which no id holds, and the id of the key. The
// value is one byte without meaning.
func organizationKey(organization string, id ID) []byte {
	return append(append([]byte(organization), 0), id[:]...)
}

// scanOrganization visits the ids of an organization's keys, newest first, from
// the one that follows after. limit is how many the caller means to visit, zero if
// it does not know.
func scanOrganization(tx Reader, organization string, after ID, limit int, yield func(ID) bool) error {
	all := Range{From: organizationKey(organization, ID{}), To: append([]byte(organization), 1), Reverse: true, Limit: limit}
	if !after.IsZero() {
		all.To = organizationKey(organization, after)
	}
	return tx.Scan(TableOrganizations, all, func(key, _ []byte) bool {
		id := key[len(organization)+1:]
		return len(id) != len(ID{}) || yield(ID(id))
	})
}

// The counts in TableCounts. Eight bytes, big-endian.
const (
	countIssued  = "issued"  // keys in the store
	countRevoked = "revoked" // those of them that are revoked
)

// countLive is the count of an organization's keys that are not revoked.
func countLive(organization string) string { return "live/" + organization }

func count(tx Tx, name string, more int64) error {
	n, err := counted(tx, name)
	if err != nil || more == 0 {
		return err
	}
	n = uint64(max(int64(n)+more, 0))
	return tx.Put(TableCounts, []byte(name), binary.BigEndian.AppendUint64(nil, n))
}

// countNames are the counts of a record by what is needed to use it: for a foreign
// token the kind of its digest, and the pepper unless the key was revoked.
func (r *record) countNames() (names []string) {
	d := &r.digest
	if d.algorithm.foreign() {
		names = append(names, foreignKind{d.algorithm, d.pepper}.countName())
	}
	if d.pepper != 0 && d.algorithm != algorithmForeignHMAC && !r.Revoked() {
		names = append(names, countPepper(d.pepper))
	}
	return names
}

func (r *record) countDigest(tx Tx, more int64) error {
	for _, name := range r.countNames() {
		if err := count(tx, name, more); err != nil {
			return err
		}
	}
	return nil
}

func counted(tx Reader, name string) (uint64, error) {
	value, err := tx.Get(TableCounts, []byte(name))
	return number(value), err
}

func number(value []byte) uint64 {
	if len(value) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}
