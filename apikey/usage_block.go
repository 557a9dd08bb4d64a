package apikey

import (
	"encoding/binary"
	"fmt"
	"math"
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
	value, version, err := unseal(b.from, sealed, usageBlockVersion)
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

// usageRows are the rows of a block to be written. What they have allocated serves for
// the next block, too.
type usageRows struct {
	agents, rows []byte
	value        []byte
	part         *usageRows // see write
}

// reset begins with the user agents of a block, and none of its rows.
func (w *usageRows) reset(agents string) {
	w.agents, w.rows = append(w.agents[:0], agents...), w.rows[:0]
}

// add adds a row for the usage of a key.
func (w *usageRows) add(id ID, u *Usage) {
	w.rows = append(append(w.rows, id[:]...), 0)
	start := len(w.rows)
	w.rows = binary.AppendUvarint(w.rows, uint64(toMillis(u.LastUsedAt)))
	w.rows = binary.AppendUvarint(w.rows, u.Count)
	address, _ := u.LastUsedIP.MarshalBinary() // without a zone: none is kept
	w.rows = append(append(w.rows, byte(len(address))), address...)
	w.rows = binary.AppendUvarint(w.rows, w.agent(u.LastUsedUserAgent))
	w.rows[start-1] = byte(len(w.rows) - start) // four numbers and an address: it fits
}

// agent returns the number of a user agent.
func (w *usageRows) agent(text string) (n uint64) {
	if text == "" {
		return 0
	}
	n = 1
	for p := (parser{rest: textOf(w.agents)}); p.rest != ""; n++ {
		if p.text() == text {
			return n
		}
	}
	w.agents = appendText(w.agents, text)
	return n
}

// write puts the rows into the store, in place of a block.
func (w *usageRows) write(tx Tx, b *usageBlock) error {
	if w.size() <= maxUsageBlock {
		return w.writeAs(tx, b.from)
	}
	if w.part == nil {
		w.part = new(usageRows)
	}
	all := usageBlock{agents: textOf(w.agents), rows: textOf(w.rows)}
	rest := all
	rows, err := w.part.move(&rest, math.MaxInt) // without user agents that no row has any more
	parts := w.part.size()/maxUsageBlock + 1
	for from := b.from; err == nil && all.rows != ""; {
		if _, err = w.part.move(&all, (rows+parts-1)/parts); err == nil {
			err = w.part.writeAs(tx, from)
		}
		if all.rows != "" {
			from = ID([]byte(all.rows[:len(from)]))
		}
	}
	return err
}

func (w *usageRows) size() int { return len(w.agents) + len(w.rows) }

// move takes up to most rows off a block, with the user agents that they have.
func (w *usageRows) move(b *usageBlock, most int) (rows int, err error) {
	for w.reset(""); b.rows != "" && rows < most; rows++ {
		id, row, err := b.cut()
		if err != nil {
			return rows, err
		}
		usage, err := b.usage(row)
		if err != nil {
			return rows, err
		}
		w.add(id, &usage)
	}
	return rows, nil
}

func (w *usageRows) writeAs(tx Tx, from ID) error {
	w.value = append(w.value[:0], usageBlockVersion)
	w.value = seal(from, append(appendText(w.value, textOf(w.agents)), w.rows...))
	return tx.Put(TableUsage, from[:], w.value)
}

// merge collects the rows of a block and adds uses to them, which are sorted by their
// keys.
func (w *usageRows) merge(b usageBlock, uses []pendingUse, moves *moves, now int64) error {
	w.reset(b.agents)
	for len(uses) > 0 {
		key := uses[0].id
		row, err := w.copyBefore(&b, key)
		var usage Usage
		if err == nil && row != "" {
			usage, err = b.usage(row)
		}
		if err != nil {
			return err
		}
		for ; len(uses) > 0 && uses[0].id == key; uses = uses[1:] {
			uses[0].write(&usage, moves, now)
		}
		w.add(key, &usage)
	}
	w.rows = append(w.rows, b.rows...)
	return nil
}

// copyBefore takes the rows of keys before one off a block with the same user agents,
// and copies them, then takes the row of the key itself, if there is one.
func (w *usageRows) copyBefore(b *usageBlock, key ID) (row string, err error) {
	rows := b.rows
	for b.rows != "" && err == nil {
		left := b.rows
		var id ID
		id, row, err = b.cut()
		if order := id.compare(key); order == 0 {
			break
		} else if row = ""; order > 0 {
			b.rows = left
			break
		}
	}
	w.rows = append(w.rows, rows[:len(rows)-len(b.rows)-len(row)]...)
	return row, err
}

// removeUsage takes what is known of a key's use out of the store.
func removeUsage(tx Tx, id ID) error {
	b, _, err := findUsageBlock(tx, id)
	if err != nil || !b.stored {
		return err
	}
	value, err := tx.Get(TableUsage, b.from[:]) // with what the transaction has written
	if err != nil || value == nil {
		return err
	}
	var w usageRows
	if b.open(value) != nil {
		return nil // the next use of a key in it starts it over
	}
	w.reset(b.agents)
	row, err := w.copyBefore(&b, id)
	if err != nil || row == "" {
		return nil
	}
	rest := usageBlock{agents: b.agents, rows: textOf(append(w.rows, b.rows...))}
	var kept usageRows
	if rows, err := kept.move(&rest, math.MaxInt); err != nil { // without the user agent that only this key had
		return nil
	} else if rows == 0 {
		return tx.Delete(TableUsage, b.from[:])
	}
	// Never split: a scan would miss the new block while this transaction goes on.
	return kept.writeAs(tx, b.from)
}
