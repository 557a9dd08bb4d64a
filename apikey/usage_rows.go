package apikey

import (
	"encoding/binary"
	"math"
)

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
