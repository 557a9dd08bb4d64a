//go:build clients

package main_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestClientImportsOfAnySizeTakeTheSameMemory prints how long imports take, and the
// memory of the server.
func TestClientImportsOfAnySizeTakeTheSameMemory(t *testing.T) {
	const slack = 24 << 20 // runs differ, and in a small store keys share pages
	grown := make(map[int]int)
	for _, n := range []int{10_000, 100_000} {
		g := startImporting(t, "")
		file := g.importFile("keys", n)
		before := g.anonymous()
		peak := g.peakOf(func() {
			for pass, want := range []importResult{{Imported: n}, {Duplicates: make([]int, n)}} {
				start := time.Now()
				result, stderr, code := g.importing(file)
				if code != 0 || result.Imported != want.Imported || len(result.Duplicates) != len(want.Duplicates) || len(result.Refused) != 0 {
					t.Fatalf("import %d: exit code %d, %d imported, %d duplicates, %s", pass+1, code, result.Imported, len(result.Duplicates), stderr)
				}
				t.Logf("%6d keys, import %d: %5.1f s, %d imported, %d duplicates", n, pass+1, time.Since(start).Seconds(), result.Imported, len(result.Duplicates))
				if pass == 0 {
					g.requireStatus(200, "GET", "/", foreignToken(n/2))
				}
			}
		})
		if keys := g.stored(); keys != n {
			t.Errorf("%d keys, want %d", keys, n)
		}
		t.Logf("%6d keys, anonymous memory of the server: %.1f MiB before, %.1f MiB at its peak, %.1f MiB after", n, mib(before), mib(peak), mib(g.anonymous()))
		grown[n] = peak - before
	}
	if more := grown[100_000] - grown[10_000]; more > slack && !raceDetector() {
		t.Errorf("an import of 100,000 keys takes %.1f MiB more than one of 10,000", mib(more))
	}
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// anonymous is the memory of the server that is not a part of files, in bytes.
func (g *gateway) anonymous() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == "RssAnon:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				g.t.Error(err)
			}
			return kib << 10
		}
	}
	g.t.Errorf("the memory of the server is not told: %v", err)
	return 0
}

// peakOf returns the most memory that the server took while something was done.
func (g *gateway) peakOf(do func()) (peak int) {
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, g.anonymous())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	defer looking.Wait()
	defer close(done)
	do()
	return peak
}
