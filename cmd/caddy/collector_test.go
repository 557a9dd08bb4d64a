package main

import (
	"math"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestThereIsRoomForGarbageWhateverIsKept(t *testing.T) {
	for _, c := range []struct {
		kept, limit uint64
		want        int
	}{
		{0, math.MaxInt64, 3200},
		{8 << 20, math.MaxInt64, 400},
		{16 << 20, math.MaxInt64, 200},
		{32 << 20, math.MaxInt64, 100},
		{1000 << 20, math.MaxInt64, 100},
		{8 << 20, 128 << 20, 400},
		{8 << 20, 64 << 20, 200},
		{8 << 20, 1 << 20, 100},
	} {
		if got := percentFor(c.kept, c.limit); got != c.want {
			t.Errorf("%d bytes kept of %d: GOGC=%d, want %d", c.kept, c.limit, got, c.want)
		}
	}
}

func TestRoomForGarbageIsMadeAnewAfterEachCollection(t *testing.T) {
	keepRoom()
	var ballast []byte
	for _, size := range []int{12 << 20, 20 << 20, 0} {
		ballast = make([]byte, size)
		// What is set follows a collection soon, and some of the heap may come and
		// go between the two.
		near := func() bool {
			runtime.GC()
			percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
			metrics.Read(percent)
			room := kept() * percent[0].Value.Uint64() / 100
			return kept() > uint64(size) && room > garbageRoom-1<<20 && room < garbageRoom+1<<20
		}
		for deadline := time.Now().Add(30 * time.Second); !near(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("with %d bytes kept, of %d, there is no room for garbage", size, kept())
			}
		}
		runtime.KeepAlive(ballast)
	}
}
