package apikey

import (
	"encoding/binary"
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

	maxAddressBytes = 16
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
		row = row[:len(row)-len(p.rest)]
		b.agents, b.rows = p.rest, string(b.from[:])+row+"\x01"
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
	at := len(id)
	for part := range 4 { // all numbers, and the third one the length of what follows
		n, size := binary.Uvarint(bytesOf(b.rows[min(at, len(b.rows)):]))
		if at += size; size <= 0 {
			return id, "", errDamaged
		}
		if part == 2 {
			if n > maxAddressBytes {
				return id, "", errDamaged
			}
			at += int(n)
		}
	}
	if at > len(b.rows) {
		return id, "", errDamaged
	}
	row, b.rows = b.rows[:at], b.rows[at:]
	copy(id[:], row)
	if len(b.rows) >= len(id) && row[:len(id)] >= b.rows[:len(id)] { // out of order
		return id, "", errDamaged
	}
	return id, row, nil
}

// usage returns what a row of the block tells. The user agent is the block's.
func (b *usageBlock) usage(row string) (u Usage, err error) {
	p := parser{rest: row[len(ID{}):]}
	u.LastUsedAt, u.Count = fromMillis(p.int()), uint64(p.int())
	u.LastUsedIP, _ = netip.AddrFromSlice(bytesOf(p.text()))
	agent, agents := "", parser{rest: b.agents}
	for range p.int() {
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
	starts       []int // of each row
	value        []byte
	other        *usageRows // see write
}

// reset begins with the user agents of a block, and none of its rows.
func (w *usageRows) reset(agents string) {
	w.agents, w.rows, w.starts = append(w.agents[:0], agents...), w.rows[:0], w.starts[:0]
}

// copy adds a row of a block with the same user agents.
func (w *usageRows) copy(row string) {
	w.starts = append(w.starts, len(w.rows))
	w.rows = append(w.rows, row...)
}

// add adds a row for the usage of a key.
func (w *usageRows) add(id ID, u *Usage) {
	w.starts = append(w.starts, len(w.rows))
	w.rows = append(w.rows, id[:]...)
	w.rows = binary.AppendUvarint(w.rows, uint64(toMillis(u.LastUsedAt)))
	w.rows = binary.AppendUvarint(w.rows, u.Count)
	address, _ := u.LastUsedIP.MarshalBinary() // without a zone: none is kept
	w.rows = append(append(w.rows, byte(len(address))), address...)
	w.rows = binary.AppendUvarint(w.rows, w.agent(u.LastUsedUserAgent))
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
	if len(w.starts) == 0 {
		if !b.stored {
			return nil
		}
		return tx.Delete(TableUsage, b.from[:])
	}
	if w.size() <= maxUsageBlock {
		return w.writeAs(tx, b.from)
	}
	// User agents go first that no row has any more.
	all, err := w.some(0, len(w.starts))
	if err != nil {
		return err
	}
	parts := all.size()/maxUsageBlock + 1
	each := (len(all.starts) + parts - 1) / parts
	for first := 0; first < len(all.starts); first += each {
		part, from := all, b.from
		if parts > 1 {
			if part, err = all.some(first, min(first+each, len(all.starts))); err != nil {
				return err
			}
		}
		if first > 0 {
			from = ID(part.rows[:len(from)])
		}
		if err := part.writeAs(tx, from); err != nil {
			return err
		}
	}
	return nil
}

func (w *usageRows) size() int { return len(w.agents) + len(w.rows) }

// some returns the rows from first on to end, with the user agents that they have.
func (w *usageRows) some(first, end int) (*usageRows, error) {
	if w.other == nil {
		w.other = new(usageRows)
	}
	w.other.reset("")
	rows := w.rows[w.starts[first]:]
	if end < len(w.starts) {
		rows = rows[:w.starts[end]-w.starts[first]]
	}
	for b := (usageBlock{agents: textOf(w.agents), rows: textOf(rows)}); b.rows != ""; {
		id, row, err := b.cut()
		if err != nil {
			return nil, err
		}
		usage, err := b.usage(row)
		if err != nil {
			return nil, err
		}
		w.other.add(id, &usage)
	}
	return w.other, nil
}

func (w *usageRows) writeAs(tx Tx, from ID) error {
	w.value = append(w.value[:0], usageBlockVersion)
	w.value = seal(from, append(appendText(w.value, textOf(w.agents)), w.rows...))
	return tx.Put(TableUsage, from[:], w.value)
}

// merge collects the rows of a block and adds uses to them, which are sorted by their
// keys.
func (w *usageRows) merge(b usageBlock, uses []pendingUse, moves *moves, now int64) (err error) {
	w.reset(b.agents)
	var id ID
	var row string
	next := func() {
		if row = ""; err == nil && b.rows != "" {
			id, row, err = b.cut()
		}
	}
	next()
	for len(uses) > 0 {
		key := uses[0].id
		for ; row != "" && id.compare(key) < 0; next() {
			w.copy(row)
		}
		var usage Usage
		if row != "" && id == key && err == nil {
			if usage, err = b.usage(row); err == nil {
				next()
			}
		}
		for ; len(uses) > 0 && uses[0].id == key; uses = uses[1:] {
			uses[0].write(&usage, moves, now)
		}
		w.add(key, &usage)
	}
	for ; row != ""; next() {
		w.copy(row)
	}
	return err
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
	found := false
	for b.rows != "" {
		of, row, err := b.cut()
		if err != nil {
			return nil
		}
		if found = found || of == id; of != id {
			w.copy(row)
		}
	}
	if !found {
		return nil
	}
	return w.write(tx, &b)
}
