package apikey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The counts of a store change while it is checked. One that differs from what was
// seen on the way is counted again, together with what it counts, in one read.

// tallyIn adds a record to the counts that are not of one organization.
func (r *record) tallyIn(tally map[string]int64) {
	tally[countIssued]++
	if r.Revoked() {
		tally[countRevoked]++
	}
	for _, name := range r.countNames() {
		tally[name]++
	}
}

// living compares the count of an organization's live keys with what was seen.
func (c *checker) living(ctx context.Context, organization string, seen int64) error {
	var stored, live int64
	err := c.store.View(ctx, func(tx Reader) error {
		n, err := counted(tx, countLive(organization))
		if stored, live = int64(n), seen; err != nil || stored == seen {
			return err
		}
		live = 0
		var failed error
		err = scanOrganization(tx, organization, ID{}, 0, func(id ID) bool {
			value, err := tx.Get(TableKeys, id[:])
			failed = err
			if r, bad := decodeRecord(id, value); err == nil && bad == nil && !r.Revoked() {
				live++
			}
			return err == nil
		})
		return errors.Join(err, failed)
	})
	if err == nil && stored != live {
		c.miscounted(countLive(organization), stored, live)
	}
	return err
}

func (c *checker) miscounted(name string, stored, found int64) {
	c.report(TableCounts, []byte(name), fmt.Sprintf("is %d, and there are %d", stored, found))
}

// counts compares the counts that are not of one organization, and looks for those
// of organizations without keys.
func (c *checker) counts(ctx context.Context) error {
	err := c.each(ctx, TableCounts, func(tx Reader, v *visited, value []byte) error {
		organization, live := strings.CutPrefix(string(v.key), countLive(""))
		if len(value) != 8 {
			v.problem = "is not a number"
			return nil
		}
		if !live || number(value) == 0 {
			return nil
		}
		listed := false
		err := scanOrganization(tx, organization, ID{}, 1, func(ID) bool { listed = true; return false })
		if !listed {
			v.problem = "counts keys of an organization that has none"
		}
		return err
	}, nil)
	if err != nil {
		return err
	}
	stored := make(map[string]int64)
	err = c.store.View(ctx, func(tx Reader) error {
		clear(stored)
		err := tx.Scan(TableCounts, Range{}, func(key, value []byte) bool {
			if name := string(key); !strings.HasPrefix(name, countLive("")) && number(value) > 0 {
				stored[name] = int64(number(value))
			}
			return true
		})
		if err != nil || maps.Equal(stored, c.tally) {
			return err
		}
		clear(c.tally)
		return tx.Scan(TableKeys, Range{}, func(key, value []byte) bool {
			if len(key) == len(ID{}) {
				if r, err := decodeRecord(ID(key), value); err == nil {
					r.tallyIn(c.tally)
				}
			}
			return true
		})
	})
	if err != nil {
		return err
	}
	names := maps.Clone(stored)
	maps.Copy(names, c.tally)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if stored[name] != c.tally[name] {
			c.miscounted(name, stored[name], c.tally[name])
		}
	}
	return nil
}
