package apikey

import (
	"errors"
	"fmt"
	"time"
)

// usageWriter brings uses to the store. It is one flush's at a time.
type usageWriter struct {
	rows   usageRows
	blocks []usedBlock
}

// usedBlock is a block, as it is stored, and the uses of keys in it.
type usedBlock struct {
	usageBlock
	value []byte
	uses  []pendingUse
}

// maxPassedOver is how many blocks without uses are read over on the way to the next
// one that has some. Looking for it takes as long.
const maxPassedOver = 8

// write adds uses, sorted by their keys, to the usage in the store.
func (u *usageWriter) write(tx Tx, uses []pendingUse, moves *moves, now int64) error {
	defer func() { clear(u.blocks) }() // they lie in memory that the store may take back
	for len(uses) > 0 {
		left, err := u.find(tx, uses)
		if err != nil {
			return err
		}
		for i := range u.blocks {
			if err := u.add(tx, &u.blocks[i], moves, now); err != nil {
				return err
			}
		}
		uses = left
	}
	return nil
}

// find reads the blocks of some uses, the first of them at least, and returns those
// whose blocks are too far away.
func (u *usageWriter) find(tx Reader, uses []pendingUse) (left []pendingUse, err error) {
	clear(u.blocks)
	u.blocks = u.blocks[:0]
	var at usedBlock
	if at.usageBlock, at.value, err = findUsageBlock(tx, uses[0].id); err != nil {
		return nil, err
	}
	left = uses
	passed := 0
	// take gives the block its uses, those before the next block.
	take := func(bounded bool, next ID) {
		n := 0
		for n < len(left) && (!bounded || left[n].id.compare(next) < 0) {
			n++
		}
		if at.uses, left = left[:n], left[n:]; n > 0 {
			u.blocks = append(u.blocks, at)
			passed = 0
		} else {
			passed++
		}
	}
	err = tx.Scan(TableUsage, Range{From: append(uses[0].id[:], 0)}, func(key, value []byte) bool {
		if len(key) != len(at.from) {
			return true // nothing of ours
		}
		take(true, ID(key))
		at = usedBlock{usageBlock: usageBlock{from: ID(key), stored: true}, value: value}
		return len(left) > 0 && passed <= maxPassedOver
	})
	if err == nil && len(left) > 0 && passed <= maxPassedOver {
		take(false, ID{}) // no block follows
	}
	return left, err
}

// add writes a block with the uses of its keys.
func (u *usageWriter) add(tx Tx, b *usedBlock, moves *moves, now int64) (err error) {
	if b.stored {
		err = b.open(b.value)
	}
	if err == nil {
		err = u.rows.merge(b.usageBlock, b.uses, moves, now)
	}
	if errors.Is(err, errDamaged) { // usage is worth less than the keys' going on
		b.agents, b.rows = "", ""
		err = u.rows.merge(b.usageBlock, b.uses, moves, now)
	}
	if err != nil {
		return fmt.Errorf("reading the usage of key %s: %w", b.uses[0].id, err)
	}
	return u.rows.write(tx, &b.usageBlock)
}

// compare finds out which uses, sorted by their keys, only move the time: those by the
// client that the store has of their key.
func (u *usageWriter) compare(tx Reader, uses []pendingUse) error {
	defer func() { clear(u.blocks) }()
	for len(uses) > 0 {
		left, err := u.find(tx, uses)
		if err != nil {
			return err
		}
		for i := range u.blocks {
			u.blocks[i].compare()
		}
		uses = left
	}
	return nil
}

// compare compares the uses of a block. Those of one that is damaged are new: writing them
// starts it over.
func (b *usedBlock) compare() {
	err := errDamaged
	if b.stored {
		err = b.open(b.value)
	}
	var id ID
	var row string
	for i := range b.uses {
		p := &b.uses[i]
		for err == nil && b.rows != "" && id.compare(p.id) < 0 {
			id, row, err = b.cut()
		}
		p.mayWait = err == nil && id == p.id && b.isFrom(row, p.client)
	}
}

// isFrom reports whether a row tells of a use by a client, or by any if it is nil: the
// client was not another then.
func (b *usageBlock) isFrom(row string, c *client) bool {
	usage, err := b.usage(row)
	return err == nil && (c == nil || usage.LastUsedIP == c.address && usage.LastUsedUserAgent == c.userAgent)
}

// maxAhead is how far the clocks of gateways that share a store may differ.
const maxAhead = 5 * time.Minute

// write adds a use to the usage of its key. It may run again: after a run that counted
// for nothing it does all anew, after one whose outcome is not known it leaves what
// that one has written as it is.
func (p *pendingUse) write(stored *Usage, moves *moves, now int64) {
	if p.wrote.count > 0 && stored.Count == p.wrote.count && toMillis(stored.LastUsedAt) >= p.wrote.used {
		return
	}
	before := *stored
	p.addTo(stored)
	if p.client != nil && toMillis(stored.LastUsedAt) > now+maxAhead.Milliseconds() {
		// The time is that of a clock that was ahead, and never goes back. It must
		// not hide who uses the key since.
		stored.LastUsedIP, stored.LastUsedUserAgent = p.client.address, p.client.userAgent
	}
	p.moved = nil
	if p.client != nil {
		p.moved = moves.find(p.id, &before, stored, now)
	}
	if p.count > 0 {
		p.leaves = left{stored.Count, toMillis(stored.LastUsedAt)}
	}
}
