package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// A bbolt file is a tree of pages without checksums, and bbolt believes what they
// say: from a damaged file it may read what it has not mapped, or go round in
// circles. So a file of unknown origin is looked at page by page first, through
// plain reads. The layout below is bbolt's format 2, in the byte order of the
// machine:
//
//	page     id u64, flags u16, count u16, overflow u32, then count elements
//	branch   pos u32, key size u32, page u64        pos counts from the element
//	leaf     flags u32, pos u32, key size u32, value size u32
//	bucket   root page u64, sequence u64, and if root is 0 a page of its own
//	meta     magic u32, version u32, page size u32, flags u32, root bucket,
//	         freelist page u64, end u64, transaction u64, FNV-1a of all that
const (
	pageHeader    = 16
	elementSize   = 16
	bucketHeader  = 16
	metaSize      = 64
	metaMagic     = 0xED0CDAED
	metaVersion   = 2
	noFreelist    = ^uint64(0)
	pageBranch    = 0x01
	pageLeaf      = 0x02
	pageFreelist  = 0x10
	leafIsBucket  = 0x01
	maxPageDepth  = 64
	maxPageFaults = 100
)

var order = binary.NativeEndian

type pageMeta struct {
	pageSize                       int64
	root, freelist, end, committed uint64
}

// readMeta returns the later one of the two meta pages that are whole.
func readMeta(file io.ReaderAt) (found pageMeta, err error) {
	err = errors.New("no meta page of the file is whole: it is not a key store, or it is damaged")
	// The first page may be the damaged one, and only the pages know their size.
	for _, at := range []int64{0, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16} {
		if m, ok := readMetaAt(file, at); ok && (at == 0 || at == m.pageSize) && (err != nil || m.committed > found.committed) {
			found, err = m, nil
		}
	}
	return found, err
}

// readMetaAt returns the meta page at an offset, when it is whole.
func readMetaAt(file io.ReaderAt, at int64) (m pageMeta, whole bool) {
	b := make([]byte, pageHeader+metaSize)
	if _, err := file.ReadAt(b, at); err != nil {
		return m, false
	}
	b = b[pageHeader:]
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	m = pageMeta{int64(order.Uint32(b[8:])), order.Uint64(b[16:]), order.Uint64(b[32:]), order.Uint64(b[40:]), order.Uint64(b[48:])}
	return m, order.Uint32(b) == metaMagic && order.Uint32(b[4:]) == metaVersion && order.Uint64(b[metaSize-8:]) == h.Sum64() &&
		m.pageSize >= 512 && m.pageSize <= 1<<20 && m.end < 1<<40
}

// checkPages calls fault for what is wrong with the pages of a file. The error
// says that the file could not be read.
func checkPages(file *os.File, fault func(problem string)) error {
	m, err := readMeta(file)
	if err != nil {
		fault(err.Error())
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if size := int64(m.end) * m.pageSize; info.Size() < size {
		fault(fmt.Sprintf("the file was cut off: it has %d bytes of %d", info.Size(), size))
		return nil
	}
	w := &pageWalk{file: file, meta: m, seen: make([]byte, m.end/8+1), fault: fault}
	w.mark(0)
	w.mark(1)
	w.tree(m.root, nil, nil, 0)
	if m.freelist != noFreelist {
		w.freelist()
	}
	return w.err
}

type pageWalk struct {
	file   io.ReaderAt
	meta   pageMeta
	seen   []byte // a bit for each page
	fault  func(string)
	faults int
	err    error
}

func (w *pageWalk) wrong(format string, args ...any) {
	if w.faults++; w.faults <= maxPageFaults {
		w.fault(fmt.Sprintf(format, args...))
	}
}

// mark reports false when a page was met before.
func (w *pageWalk) mark(page uint64) bool {
	at, bit := page/8, byte(1)<<(page%8)
	met := w.seen[at]&bit != 0
	w.seen[at] |= bit
	return !met
}

// page reads a page that was not met before, with those that it spreads over.
func (w *pageWalk) page(id uint64, kinds uint16) []byte {
	if w.err != nil {
		return nil
	}
	if id < 2 || id >= w.meta.end {
		w.wrong("page %d: is outside of the file", id)
		return nil
	}
	header := make([]byte, pageHeader)
	if _, w.err = w.file.ReadAt(header, int64(id)*w.meta.pageSize); w.err != nil {
		return nil
	}
	more := uint64(order.Uint32(header[12:]))
	switch {
	case order.Uint64(header) != id:
		w.wrong("page %d: says that it is page %d", id, order.Uint64(header))
		return nil
	case order.Uint16(header[8:])&kinds == 0 || order.Uint16(header[8:])&^kinds != 0:
		w.wrong("page %d: is of another kind", id)
		return nil
	case more >= w.meta.end-id:
		w.wrong("page %d: goes on past the end of the file", id)
		return nil
	}
	for p := id; p <= id+more; p++ {
		if !w.mark(p) {
			w.wrong("page %d: is used twice", p)
			return nil
		}
	}
	content := make([]byte, int64(more+1)*w.meta.pageSize)
	if _, w.err = w.file.ReadAt(content, int64(id)*w.meta.pageSize); w.err != nil {
		return nil
	}
	return content
}

// tree walks the pages below one, whose keys are at least from and less than to.
func (w *pageWalk) tree(id uint64, from, to []byte, depth int) {
	if depth > maxPageDepth {
		w.wrong("page %d: lies too deep", id)
		return
	}
	if content := w.page(id, pageBranch|pageLeaf); content != nil {
		w.elements(id, content, from, to, depth)
	}
}

func (w *pageWalk) elements(id uint64, content, from, to []byte, depth int) {
	flags, count := order.Uint16(content[8:]), int(order.Uint16(content[10:]))
	if flags != pageBranch && flags != pageLeaf {
		w.wrong("page %d: is of another kind", id)
		return
	}
	if pageHeader+count*elementSize > len(content) {
		w.wrong("page %d: has more elements than room", id)
		return
	}
	type child struct {
		page uint64
		key  []byte
	}
	var children []child
	var last []byte
	next := int64(pageHeader + count*elementSize) // bbolt leaves no gaps
	for i := range count {
		at := pageHeader + i*elementSize
		element := content[at : at+elementSize]
		pos, keySize, valueSize := int64(order.Uint32(element)), int64(order.Uint32(element[4:])), int64(0)
		if flags == pageLeaf {
			pos, keySize, valueSize = int64(order.Uint32(element[4:])), int64(order.Uint32(element[8:])), int64(order.Uint32(element[12:]))
		}
		begin := int64(at) + pos
		if begin != next || keySize == 0 || begin+keySize+valueSize > int64(len(content)) {
			w.wrong("page %d: element %d is not in its place", id, i)
			return
		}
		next = begin + keySize + valueSize
		key, value := content[begin:begin+keySize], content[begin+keySize:begin+keySize+valueSize]
		if i > 0 && bytes.Compare(last, key) >= 0 || i == 0 && bytes.Compare(key, from) < 0 || to != nil && bytes.Compare(key, to) >= 0 {
			w.wrong("page %d: element %d is out of order", id, i)
		}
		last = key
		switch kind := order.Uint32(element); {
		case flags == pageBranch:
			children = append(children, child{order.Uint64(element[8:]), key})
		case kind == leafIsBucket:
			w.inside(id, value, depth)
		case kind != 0:
			w.wrong("page %d: element %d is of another kind", id, i)
		}
	}
	if flags == pageBranch && count == 0 {
		w.wrong("page %d: leads nowhere", id)
	}
	for i, c := range children {
		end := to
		if i+1 < len(children) {
			end = children[i+1].key
		}
		w.tree(c.page, c.key, end, depth+1)
	}
}

// inside walks a bucket that is a value. A small one lies in the value itself.
func (w *pageWalk) inside(id uint64, value []byte, depth int) {
	switch {
	case len(value) < bucketHeader:
		w.wrong("page %d: a bucket is cut off", id)
	case order.Uint64(value) != 0:
		w.tree(order.Uint64(value), nil, nil, depth+1)
	case len(value) < bucketHeader+pageHeader || order.Uint16(value[bucketHeader+8:]) != pageLeaf:
		w.wrong("page %d: a bucket has no page", id)
	default:
		w.elements(id, value[bucketHeader:], nil, nil, depth+1)
	}
}

// freelist makes sure that every page is either in use or free: one that is both
// would be written over.
func (w *pageWalk) freelist() {
	content := w.page(w.meta.freelist, pageFreelist)
	if content == nil {
		return
	}
	count, at := uint64(order.Uint16(content[10:])), uint64(pageHeader)
	if count == 0xffff {
		count, at = order.Uint64(content[at:]), at+8
	}
	if count > (uint64(len(content))-at)/8 {
		w.wrong("page %d: has more elements than room", w.meta.freelist)
		return
	}
	for i := range count {
		switch free := order.Uint64(content[at+i*8:]); {
		case free < 2 || free >= w.meta.end:
			w.wrong("page %d: is free, and outside of the file", free)
		case !w.mark(free):
			w.wrong("page %d: is free, and in use", free)
		}
	}
	if w.faults > 0 {
		return // what cannot be reached would be reported once more
	}
	for p := range w.meta.end {
		if w.mark(p) {
			w.wrong("page %d: is neither free nor in use", p)
		}
	}
}
