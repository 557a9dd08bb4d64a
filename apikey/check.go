package apikey

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// Fault is something in a store that no Keyring has left there.
type Fault struct {
	// Table is where it was found.
	Table Table
	// Key names the record: the id of a key, an organization, a count.
	Key string
	// Problem says what is wrong with it.
	Problem string
}

// String returns a sentence.
func (f Fault) String() string { return fmt.Sprintf("%s: %s: %s", f.Table, f.Key, f.Problem) }

// Checked is what a check has looked at.
type Checked struct {
	Keys    int // keys that were read
	Revoked int // those of them that are revoked
	Faults  int // how many were found
}

// checkSlice is how many records are checked in one read.
const checkSlice = 1000

// CheckStore reads every record of a store and compares those that must agree. It
// calls fault for each thing that is wrong, and progress, from time to time, with
// the number of keys that were read. The store may be in use: what is compared is
// read together, in short reads. The error says that the store cannot be read.
func CheckStore(ctx context.Context, store Store, progress func(keys int), fault func(Fault)) (Checked, error) {
	c := &checker{store: store, progress: progress, fault: fault, tally: make(map[string]int64)}
	for _, pass := range []func(context.Context) error{c.keys, c.organizations, c.usage, c.calls, c.foreign, c.counts} {
		if err := pass(ctx); err != nil {
			return c.done, unavailable("checking the key store", err)
		}
	}
	return c.done, nil
}

// Check is CheckStore of the store that is in use.
func (k *Keyring) Check(ctx context.Context, progress func(keys int), fault func(Fault)) (Checked, error) {
	return CheckStore(ctx, k.store, progress, fault)
}

type checker struct {
	store    Store
	progress func(int)
	fault    func(Fault)
	done     Checked
	tally    map[string]int64 // by the name of the count
}

// visited is a record that was looked at. It is reported when the read has
// succeeded, for a driver may run that more than once.
type visited struct {
	key     []byte
	record  *record // of a key
	problem string
}

// each looks at every record of a table, a slice in a read, and hands on what was
// seen in each.
func (c *checker) each(ctx context.Context, t Table, look func(tx Reader, v *visited, value []byte) error, seen func([]visited) error) error {
	for from := []byte(nil); ; {
		var all []visited
		err := c.store.View(ctx, func(tx Reader) error {
			all = all[:0]
			var values [][]byte
			err := tx.Scan(t, Range{From: from, Limit: checkSlice}, func(key, value []byte) bool {
				all, values = append(all, visited{key: bytes.Clone(key)}), append(values, value)
				return len(all) < checkSlice
			})
			for i := 0; i < len(all) && err == nil; i++ {
				err = look(tx, &all[i], values[i])
			}
			return err
		})
		if err != nil {
			return err
		}
		for i := range all {
			if all[i].problem != "" {
				c.report(t, all[i].key, all[i].problem)
			}
		}
		if seen != nil {
			if err := seen(all); err != nil {
				return err
			}
		}
		if len(all) < checkSlice {
			return nil
		}
		from = append(all[len(all)-1].key, 0)
	}
}

func (c *checker) report(t Table, key []byte, problem string) {
	c.done.Faults++
	c.fault(Fault{t, shownKey(t, key), problem})
}

// shownKey is the key of a record as a person can read it.
func shownKey(t Table, key []byte) string {
	if organization, id, ok := cutOrganizationKey(key); ok && t == TableOrganizations {
		return organization + " " + id.String()
	}
	if (t == TableKeys || t == TableUsage) && len(key) == len(ID{}) {
		return ID(key).String()
	}
	if t == TableCounts {
		return strings.ToValidUTF8(string(key), "?")
	}
	return fmt.Sprintf("%x", key)
}

// cutOrganizationKey takes apart what organizationKey has put together.
func cutOrganizationKey(key []byte) (organization string, id ID, ok bool) {
	at := len(key) - len(id) - 1
	if at < 1 || key[at] != 0 {
		return "", id, false
	}
	return string(key[:at]), ID(key[at+1:]), IsIdentity(string(key[:at]))
}

const problemNotID = "stands under what is not the id of a key"

func (c *checker) keys(ctx context.Context) error {
	return c.each(ctx, TableKeys, func(tx Reader, v *visited, value []byte) (err error) {
		if len(v.key) != len(ID{}) {
			v.problem = problemNotID
			return nil
		}
		if v.record, err = decodeRecord(ID(v.key), value); err != nil {
			v.problem = err.Error()
			return nil
		}
		listed, err := tx.Get(TableOrganizations, organizationKey(v.record.OrganizationID, v.record.ID))
		if err == nil && listed == nil {
			v.problem = "is missing in the list of its organization"
		}
		if err == nil && v.record.digest.algorithm.foreign() {
			var found []byte
			if found, err = tx.Get(TableForeign, v.record.digest.foreignKey()); err == nil && !bytes.Equal(found, v.key) {
				v.problem = "cannot be found by the digest of its token"
			}
		}
		return err
	}, func(all []visited) error {
		for i := range all {
			c.done.Keys++
			if r := all[i].record; r != nil {
				r.tallyIn(c.tally)
			}
		}
		c.done.Revoked = int(c.tally[countRevoked])
		c.progress(c.done.Keys)
		return nil
	})
}

// organizations follows the lists, and counts the live keys of each.
func (c *checker) organizations(ctx context.Context) error {
	type living struct {
		organization string
		keys         int64
	}
	var last living
	var finished []living
	finish := func() {
		if last.organization != "" {
			finished = append(finished, last)
		}
	}
	check := func() error {
		for _, l := range finished {
			if err := c.living(ctx, l.organization, l.keys); err != nil {
				return err
			}
		}
		finished = finished[:0]
		return nil
	}
	err := c.each(ctx, TableOrganizations, func(tx Reader, v *visited, _ []byte) error {
		organization, id, ok := cutOrganizationKey(v.key)
		if !ok {
			v.problem = "does not name an organization and a key"
			return nil
		}
		value, err := tx.Get(TableKeys, id[:])
		if err != nil {
			return err
		}
		if value == nil {
			v.problem = "there is no such key"
			return nil
		}
		r, err := decodeRecord(id, value)
		if err != nil {
			return nil // reported before
		}
		if v.record = r; r.OrganizationID != organization {
			v.problem = "the key is of another organization"
		}
		return nil
	}, func(all []visited) error {
		for i := range all {
			organization, _, ok := cutOrganizationKey(all[i].key)
			if !ok {
				continue
			}
			if organization != last.organization {
				finish()
				last = living{organization: organization}
			}
			if r := all[i].record; r != nil && !r.Revoked() && r.OrganizationID == organization {
				last.keys++
			}
		}
		return check()
	})
	if err != nil {
		return err
	}
	finish()
	return check()
}

func (c *checker) usage(ctx context.Context) error {
	// Usage without a key is no fault: it may be written after the key went.
	return c.each(ctx, TableUsage, func(tx Reader, v *visited, value []byte) error {
		if len(v.key) != len(ID{}) {
			v.problem = problemNotID
			return nil
		}
		last, err := lastUsed(ID(v.key), value)
		if err != nil {
			v.problem = "reading the usage of keys from this one on: " + err.Error()
			return nil
		}
		if next, _, err := findUsageBlock(tx, last); err != nil || next.from == ID(v.key) {
			return err
		}
		v.problem = "has the usage of keys that belong to the next"
		return nil
	}, nil)
}

// lastUsed returns the last key of a block of usage, whose every row it looks at.
func lastUsed(from ID, value []byte) (last ID, err error) {
	b := usageBlock{from: from}
	err = b.open(value)
	least := from
	for rows := 0; err == nil && b.rows != ""; rows++ {
		var row string
		if last, row, err = b.cut(); err == nil {
			_, err = b.usage(row)
		}
		if order := last.compare(least); err == nil && (order < 0 || order == 0 && rows > 0) {
			err = errDamaged
		}
		least = last
	}
	return last, err
}

func (c *checker) calls(ctx context.Context) error {
	return c.each(ctx, TableCalls, func(_ Reader, v *visited, value []byte) error {
		if _, _, _, ok := callTime(value); !ok {
			v.problem = "is not the record of a call"
		}
		return nil
	}, nil)
}

func (c *checker) foreign(ctx context.Context) error {
	return c.each(ctx, TableForeign, func(tx Reader, v *visited, value []byte) error {
		if len(value) != len(ID{}) {
			v.problem = problemNotID
			return nil
		}
		stored, err := tx.Get(TableKeys, value)
		if err != nil {
			return err
		}
		if stored == nil {
			v.problem = "leads to no key"
		} else if r, err := decodeRecord(ID(value), stored); err == nil && !bytes.Equal(r.digest.foreignKey(), v.key) && !bytes.Equal(r.imported.foreignKey(), v.key) {
			v.problem = "leads to a key of another token"
		}
		return nil
	}, nil)
}
