package apikey

import "encoding/binary"

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
	anywhere := by.Operator && by.OrganizationID == ""
	if r == nil || r.OrganizationID != by.OrganizationID && !anywhere {
		return nil, ErrNotFound
	}
	return r, nil
}

func addUsage(tx Reader, key *Key, pending []pendingUse) error {
	value, err := tx.Get(TableUsage, key.ID[:])
	if err != nil {
		return err
	}
	if key.Usage, err = decodeUsage(key.ID, value); err != nil {
		return err
	}
	for i := range pending {
		pending[i].addTo(&key.Usage)
	}
	return nil
}

// organizationKey is the key of a record in TableOrganizations: the id of the
// organization, a zero byte, which no id holds, and the id of the key. The
// value is one byte without meaning.
func organizationKey(organization string, id ID) []byte {
	return append(append([]byte(organization), 0), id[:]...)
}

// scanOrganization returns ids of an organization's keys, newest first, from
// the one that follows after.
func scanOrganization(tx Reader, organization string, after ID, limit int) (ids []ID, err error) {
	all := Range{From: organizationKey(organization, ID{}), To: append([]byte(organization), 1), Reverse: true, Limit: limit}
	if !after.IsZero() {
		all.To = organizationKey(organization, after)
	}
	err = tx.Scan(TableOrganizations, all, func(key, _ []byte) bool {
		if id := key[len(organization)+1:]; len(id) == len(ID{}) {
			ids = append(ids, ID(id))
		}
		return len(ids) < limit
	})
	return ids, err
}

// The counts in TableCounts: how many keys were issued, and how many of them
// are revoked. Eight bytes, big-endian.
const (
	countIssued  = "issued"
	countRevoked = "revoked"
)

func count(tx Tx, name string, more uint64) error {
	n, err := counted(tx, name)
	if err != nil {
		return err
	}
	return tx.Put(TableCounts, []byte(name), binary.BigEndian.AppendUint64(nil, n+more))
}

func counted(tx Reader, name string) (uint64, error) {
	value, err := tx.Get(TableCounts, []byte(name))
	if err != nil || len(value) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}
