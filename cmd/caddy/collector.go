package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// garbageRoom is how many bytes of garbage a gateway makes between two collections. It
// makes some 15 kB for a request and keeps a few MiB, so that Go, which collects when
// the heap has doubled, would do so forty times a second. More room costs as much
// memory; docs/benchmarks.md has the figures.
const garbageRoom = 32 << 20

// keepRoom sets GOGC, now and after each collection, so that there is room for garbage
// whatever is kept. A fixed GOGC that takes as much memory at its peak, while usage is
// written, gives less room at all other times.
func keepRoom() {
	debug.SetGCPercent(percentFor(kept(), uint64(debug.SetMemoryLimit(-1))))
	runtime.AddCleanup(new([64]byte), func(struct{}) { keepRoom() }, struct{}{})
}

// percentFor returns the GOGC that gives room for garbage, or Go's own if that gives
// more. Where memory is limited, by GOMEMLIMIT or the container, garbage gets a quarter
// of it at most: the index of keys takes some that the limit does not see.
func percentFor(kept, limit uint64) int {
	return int(max(100, min(garbageRoom, limit/4)*100/max(kept, 1<<20)))
}

// kept returns what Go counts in proportion to GOGC: what the last collection has
// left, and what it looked for it through.
func kept() (bytes uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		bytes += s.Value.Uint64()
	}
	return bytes
}
