package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/stats"
)

// figure is a number that the project is held to.
type figure struct {
	what, hold, aim string
	measured        string // "": not measured in this run
	command         string
}

const (
	benchFull  = "make bench-full"
	onlyDuels  = "go run ./bench/measure -parts duel"
	onlyMicros = "go test -run '^$' -bench 'VerifyHit|RefuseBadChecksum|Use' -benchmem ./apikey"
)

// figures takes the numbers that the project is held to from a run. Ratios are
// medians, divided by what the identical pair of the same run came to.
func (r *results) figures() []figure {
	return []figure{
		{"CPU per request, authenticated / stock Caddy with the same header; 1, 10k, 100k hot keys", "<= 1.05", "<= 1.00",
			r.cpuOf(alsoLogged(hotName(1, r.Main), hotName(10_000, r.Main), hotName(100_000, r.Main))...), onlyDuels},
		{"the same, every request a miss", "<= 1.10", "<= 1.03",
			r.cpuOf(append(alsoLogged(missName(r.Main), missName(r.Largest)), quietName(r.Main), quietName(r.Largest))...), onlyDuels},
		{"p99 / stock p99, 32 connections", "<= 1.10", "<= 1.00", r.latency(), "go run ./bench/measure -parts solo"},
		{"share of CPU samples in our handler; 1 key, 10k keys", "<= 1 %, <= 2 %", "0.5 %", r.shareText(), "go run ./bench/measure -parts share"},
		{"verify a hit; refuse a bad checksum; record a use", "<= 250 ns; <= 60 ns; <= 20 ns; 0 allocations each", "<= 150; <= 40; <= 15",
			r.micros(), onlyMicros},
		{"an unknown key refused per second / proxied requests per second", ">= 2.5", ">= 3.5", r.refused(), "go run ./bench/measure -parts solo"},
		{"keys issued per second at 64 clients / fdatasync per second; empty store, largest", ">= 1.0, >= 0.7", ">= 2", r.issueText(), "go run ./bench/measure -parts issue"},
		{"latency of a lone create / fdatasync p50", "<= 6", "<= 3.5", r.loneText(), "go run ./bench/measure -parts issue"},
		{"bytes per key on disk, everything counted", "<= 200", "<= 150", r.bytesText(), "go run ./bench/fill -keys 10000000"},
		{"open to first authenticated answer, page cache dropped", "<= 250 ms", "<= 20 ms", r.openText(), "go run ./bench/measure -parts open"},
		{"anonymous memory over stock Caddy", "<= 64 MiB", "<= 32 MiB", r.memoryText(), onlyDuels},
		{"usage: 1M distinct keys in a minute under load", "0 lost, CPU ratio unchanged", "flush under 1 s", r.usageText(), "go run ./bench/measure -parts usage,duel"},
		{"kill -9 under 64 concurrent writers", "300 cycles: 0 acknowledged writes lost, 0 revived, 0 failed starts", "2,000", r.crashText(), "make crash CYCLES=300"},
		{"revoke against 64 readers on open connections", "0 of 1,000,000 accepted", "", r.raceText(), "make revoke-race ROUNDS=1000"},
	}
}

// alsoLogged adds the same scenarios with the log format of this project.
func alsoLogged(names ...string) []string {
	for _, name := range names {
		names = append(names, loggedName(name))
	}
	return names
}

// cpuOf lists the ratios of duels, with their quartiles.
func (r *results) cpuOf(names ...string) string {
	var parts []string
	for i, name := range names {
		d := r.duel(name)
		if len(d.CPU) == 0 || i > 0 && name == names[i-1] {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s: %s", name, spread(stats.Of(d.ratios()).Over(r.floorOf(d)))))
	}
	return strings.Join(parts, "; ")
}

// spread writes a median and its quartiles.
func spread(s stats.Summary) string {
	if s.N == 0 || math.IsNaN(s.Median) {
		return "not measured"
	}
	return fmt.Sprintf("%.3f (%.3f–%.3f)", s.Median, s.Q1, s.Q3)
}

func (r *results) latency() string {
	p99 := func(s *solo) []float64 { return s.P99 }
	floor := r.soloRatio(floorName, stockName, p99)
	var parts []string
	for i, store := range []string{r.Main, r.Largest} {
		name := hotName(10_000, store)
		if s := r.soloRatio(name, stockName, p99); s.N > 0 && (i == 0 || store != r.Main) {
			parts = append(parts, fmt.Sprintf("%s: %s", name, spread(s.Over(floor.Median))))
		}
	}
	return strings.Join(parts, "; ")
}

func (r *results) shareText() string {
	var parts []string
	for _, s := range r.Shares {
		if s.Name == hotName(1, r.Main) || s.Name == hotName(10_000, r.Main) {
			parts = append(parts, fmt.Sprintf("%s: %.2f %%, of it the check %.2f %%", s.Name, s.Handler, s.Check))
		}
	}
	return strings.Join(parts, ", ")
}

func (r *results) micros() string {
	var parts []string
	for _, name := range microNames {
		b, ok := find(r.Go, name)
		switch {
		case len(r.Go) == 0:
			return ""
		case !ok || len(b.NsOp) == 0 || len(b.Alloc) == 0:
			parts = append(parts, name+": no such benchmark")
			continue
		}
		parts = append(parts, fmt.Sprintf("%s: %.1f ns, %.0f allocations", name, stats.Median(b.NsOp), stats.Median(b.Alloc)))
	}
	return strings.Join(parts, "; ")
}

// microNames are benchmarks of package apikey.
var microNames = []string{"VerifyHit/keys=1", "RefuseBadChecksum", "Use/one_key"}

func (r *results) refused() string {
	s := r.soloRatio(unknownName, hotName(10_000, r.Main), (*solo).rates)
	if s.N == 0 {
		return ""
	}
	return spread(s)
}

func (s *solo) rates() []float64 { return s.PerSecond }

func (r *results) issueText() string {
	var parts []string
	for _, i := range r.Issues {
		s := stats.Of(divide(i.Of64PerSecond, i.Syncs))
		parts = append(parts, fmt.Sprintf("%s: %s, %.0f keys/s", i.Store, spread(s), stats.Median(i.Of64PerSecond)))
	}
	return strings.Join(parts, "; ")
}

func (r *results) loneText() string {
	var parts []string
	for _, i := range r.Issues {
		parts = append(parts, fmt.Sprintf("%s: %s, %.2f ms", i.Store, spread(stats.Of(divide(i.Lone, i.SyncP50))), stats.Median(i.Lone)))
	}
	return strings.Join(parts, "; ")
}

func (r *results) bytesText() string {
	if len(r.Stores) == 0 {
		return ""
	}
	s := r.Stores[len(r.Stores)-1]
	return fmt.Sprintf("%s keys: %.1f", s.Name, float64(s.Bytes)/float64(s.Keys))
}

func (r *results) openText() string {
	if r.Opens == nil {
		return ""
	}
	o := r.Opens
	return fmt.Sprintf("%s keys: %.1f ms (gateway %.1f ms, stock Caddy %.1f ms); opening and checking alone %.1f ms",
		o.Store, stats.Median(o.Gateway)-stats.Median(o.Stock), stats.Median(o.Gateway), stats.Median(o.Stock), stats.Median(o.Alone))
}

func (r *results) memoryText() string {
	stock, ok := r.memory(stockName)
	if !ok {
		return ""
	}
	var parts []string
	for i, store := range []string{r.Main, r.Largest} {
		if m, ok := r.memory("ours-" + store); ok && (i == 0 || store != r.Main) {
			parts = append(parts, fmt.Sprintf("%s keys: %+.0f MiB", store, m.Anonymous-stock.Anonymous))
		}
	}
	if m, ok := r.memory("ours-gogc-100"); ok {
		parts = append(parts, fmt.Sprintf("with GOGC=100 as stock Caddy has it, %s keys: %+.0f MiB", r.Main, m.Anonymous-stock.Anonymous))
	}
	return strings.Join(parts, "; ")
}

func (r *results) usageText() string {
	if r.Usage == nil {
		return ""
	}
	u := r.Usage
	most := "all"
	if u.FlushMost >= 0 {
		most = fmt.Sprintf("<= %g s", u.FlushMost)
	}
	text := fmt.Sprintf("%d keys in %.0f s: %d uses counted, %d keys with another number than one; %.0f flushes, mean %.3f s, %s; %.1f us of CPU each, without a proxy", u.Keys, u.Seconds, u.Counted, u.Lost, u.Flushes, u.FlushMean, most, u.CPU)
	if ratio := r.cpuOf(freshName(r.Main)); ratio != "" {
		text += "; CPU ratio, " + ratio
	}
	return text
}

func (r *results) crashText() string {
	if r.Crash == nil {
		return ""
	}
	c := r.Crash
	return fmt.Sprintf("%d cycles, %d creates and %d revokes acknowledged: %d lost, %d revived, %d failed starts, %d wrong answers",
		c.Cycles, c.Creates, c.Revokes, c.Lost, c.Revived, c.FailedStarts, c.Wrong)
}

func (r *results) raceText() string {
	if r.Race == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d accepted (%d keys, %d lookups missed the index)", r.Race.Accepted, r.Race.Requests, r.Race.Keys, r.Race.Misses)
}
