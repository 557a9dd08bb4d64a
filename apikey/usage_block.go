package apikey

import (
	"fmt"
	"net/netip"
	"strings"
)

// The usage of keys whose ids are neighbours stands in one record of TableUsage, a
// block: a flush has uses of many keys at once, and what it costs to write them is
// the number of records and pages that it touches. A block holds the keys from the id
// that it stands under to the one that the next block stands under.
//
//	bytes  what
//	1      version, 2
//	...    user agents: a text, of texts
//	       a row for each key, in order:
//	16       key id
//	1        how many bytes of the row follow
//	...      time of last use in Unix milliseconds, count: uvarint
//	...      address, of 4 bytes or 16: text
//	...      which of the user agents, counted from 1; 0: none
//	4      CRC-32C of the id that it stands under and all before
//
// A record of version 1 holds the usage of the one key whose id it stands under: time,
// count, address, and user agent as text. It is a block of one key, and becomes one of
// version 2 when it is written.
type usageBlock struct {
	from   ID
	stored bool // under from

	// Both lie in the memory of the store.
	agents, rows string
}

const (
	usageBlockVersion  = 2
	singleUsageVersion = 1

	// maxUsageBlock is how many bytes a block may have before it is split, some
	// thirty keys. Smaller ones are more records to touch, larger ones more to
	// write for a single key.
	maxUsageBlock = 1 << 10

	// rowHead is how much of a row says whose it is and where it ends, so that it
	// can be passed over.
	rowHead = len(ID{}) + 1
)

// findUsageBlock returns the block that holds the usage of a key, or would, and what
// is stored of it. What the transaction has written itself may be missing.
func findUsageBlock(tx Reader, id ID) (b usageBlock, value []byte, err error) {
	err = tx.Scan(TableUsage, Range{To: append(id[:], 0), Reverse: true, Limit: 1}, func(key, found []byte) bool {
		if b.stored = len(key) == len(b.from); b.stored {
			b.from, value = ID(key), found
		}
		return !b.stored
	})
	if !b.stored {
		b.from = id
	}
	return b, value, err
}

// open reads a block.
func (b *usageBlock) open(sealed []byte) error {
	value, version, err := unseal(b.from[:], sealed, usageBlockVersion)
	if err != nil {
		return err
	}
	p := parser{rest: textOf(value)}
	if version == singleUsageVersion {
		row := p.rest
		p.int()
		p.int()
		p.text()
		row = row[:len(row)-len(p.rest)] + "\x01" // the first user agent, which follows
		b.agents, b.rows = p.rest, string(append(b.from[:], byte(len(row))))+row
		p.text()
		p.failed = p.failed || p.rest != ""
	} else {
		b.agents = p.text()
		b.rows = p.rest
		for agents := (parser{rest: b.agents}); !p.failed && agents.rest != ""; p.failed = agents.failed {
			agents.text()
		}
	}
	if p.failed || b.rows == "" {
		b.agents, b.rows = "", ""
		return errDamaged
	}
	return nil
}

// cut takes the first row off a block that has some.
func (b *usageBlock) cut() (id ID, row string, err error) {
	if len(b.rows) < rowHead {
		return id, "", errDamaged
	}
	end := rowHead + int(b.rows[rowHead-1])
	if end > len(b.rows) {
		return id, "", errDamaged
	}
	row, b.rows = b.rows[:end], b.rows[end:]
	return ID([]byte(row[:len(id)])), row, nil
}

// usage returns what a row of the block tells. The user agent is the block's.
func (b *usageBlock) usage(row string) (u Usage, err error) {
	p := parser{rest: row[rowHead:]}
	u.LastUsedAt, u.Count = fromMillis(p.int()), uint64(p.int())
	address, number := p.text(), p.int()
	if u.LastUsedIP, _ = netip.AddrFromSlice(bytesOf(address)); p.failed || p.rest != "" || u.LastUsedIP.IsValid() != (address != "") {
		return Usage{}, errDamaged
	}
	agent, agents := "", parser{rest: b.agents}
	for range number {
		if agent = agents.text(); agents.failed {
			return Usage{}, errDamaged
		}
	}
	u.LastUsedUserAgent = agent
	return u, nil
}

// usageOf returns the usage of a key in the store.
func usageOf(tx Reader, id ID) (u Usage, err error) {
	b, value, err := findUsageBlock(tx, id)
	if err == nil && b.stored {
		err = b.open(value)
	}
	for err == nil && b.rows != "" {
		var of ID
		var row string
		if of, row, err = b.cut(); err == nil && of == id {
			u, err = b.usage(row)
			u.LastUsedUserAgent = strings.Clone(u.LastUsedUserAgent)
			break
		}
	}
	if err != nil {
		return Usage{}, fmt.Errorf("reading the usage of key %s: %w", id, err)
	}
	return u, nil
}
