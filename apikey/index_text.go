package apikey

// textBlock holds the texts of a stripe's entries. Bytes are written once,
// before an entry refers to them, and never again: a string into a block stays
// valid as long as somebody holds it, whatever happens to the entry.
type textBlock struct {
	bytes []byte
	used  int // guarded by the stripe
}

const minTextBlock = 4 << 10

// keepText stores the texts of an entry and returns the word that refers to
// them. The stripe must be held.
func (x *index) keepText(set uint64, e *entryView) uint64 {
	size := len(e.organization) + len(e.owner)
	block := x.stripeOf(set).text.Load()
	if block.used+size > len(block.bytes) {
		block = x.moveTexts(set%stripeCount, size)
	}
	at := block.used
	n := at + copy(block.bytes[at:], e.organization)
	n += copy(block.bytes[n:], e.owner)
	block.used = n
	return uint64(at)<<32 | uint64(len(e.organization))<<8 | uint64(len(e.owner))
}

// moveTexts copies the texts of a stripe's entries into a new block that has
// room for more, and leaves the old one to those who still hold strings of it.
func (x *index) moveTexts(stripe uint64, more int) *textBlock {
	s := &x.stripes[stripe]
	old := s.text.Load()
	live := make([]uint64, 0, s.entries)
	size := more
	for entry := range x.entriesOf(stripe) {
		live = append(live, entry)
		size += textSize(x.word(entry, wordText).Load())
	}
	block := &textBlock{bytes: make([]byte, max(minTextBlock, size+size/2))}
	for _, entry := range live {
		// Readers step aside until all have moved: a text must not be looked
		// for in the wrong block.
		x.word(entry, wordSequence).Add(1)
		text := x.word(entry, wordText)
		was := text.Load()
		at := block.used
		block.used += copy(block.bytes[at:], old.bytes[was>>32:][:textSize(was)])
		text.Store(uint64(at)<<32 | was&0xffff)
	}
	s.text.Store(block)
	for _, entry := range live {
		x.word(entry, wordSequence).Add(1)
	}
	return block
}

func textSize(text uint64) int { return int(text>>8&0xff) + int(text&0xff) }
