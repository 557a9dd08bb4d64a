package apikey

import (
	"runtime"
	"sync/atomic"
	"unsafe"
)

// wordsOutsideHeap returns n words, all zero, that are given back when owner has
// been collected. They lie outside of the heap where the system offers it: there
// they do not count for the collector's pace, which is set in proportion to the
// heap, so that a large index does not allow for garbage several times its size.
//
// Only methods of owner may touch them, and what it still needs of itself
// afterwards keeps it alive until then.
func wordsOutsideHeap[T any](owner *T, n int) []atomic.Uint64 {
	memory, release, err := mapMemory(n * 8)
	if err != nil {
		return make([]atomic.Uint64, n) // Go's own limits decide whether there is room
	}
	runtime.AddCleanup(owner, release, memory)
	return unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(memory))), n)
}
