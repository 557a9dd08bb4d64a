package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/stats"
)

// figure is a number that the project is held to.
type figure struct {
	what, hold, aim string
	measured        reading
	command         string
}

// reading is what the numbers of a figure came to, and which of them hold. It is
// empty when nothing was measured.
type reading struct {
	parts []string
	met   []bool
}

// add takes a number with its text, and whether it is within what it is held to.
func (m *reading) add(value float64, within func(float64) bool, format string, args ...any) {
	m.note(format, args...)
	if !math.IsNaN(value) {
		m.met = append(m.met, within(value))
	}
}

// note adds a text that is held to nothing.
func (m *reading) note(format string, args ...any) {
	m.parts = append(m.parts, fmt.Sprintf(format, args...))
}

func (m reading) text() string { return strings.Join(m.parts, "; ") }

// verdict tells whether all numbers of the figure hold, some or none.
func (m reading) verdict() string {
	switch {
	case len(m.met) == 0:
		return ""
	case !slices.Contains(m.met, false):
		return "yes"
	case slices.Contains(m.met, true):
		return "partly"
	}
	return "no"
}

func atMost(limit float64) func(float64) bool { return func(v float64) bool { return v <= limit } }

func atLeast(limit float64) func(float64) bool { return func(v float64) bool { return v >= limit } }

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
			r.cpuOf(1.05, append(alsoLogged(hotName(1, r.Main), hotName(10_000, r.Main), hotName(hotKeys, r.Main)), minuteName(hotName(hotKeys, r.Main)))...), onlyDuels},
		{"the same, every request a miss", "<= 1.10", "<= 1.03",
			r.cpuOf(1.10, r.misses()...), onlyDuels},
		{"p99 / stock p99, 32 connections", "<= 1.10", "<= 1.00", r.latency(1.10), "go run ./bench/measure -parts solo"},
		{"share of CPU samples in our handler; 1 key, 10k keys", "<= 1 %, <= 2 %", "0.5 %", r.share(1, 2), "go run ./bench/measure -parts share"},
		{"verify a hit; refuse a bad checksum; record a use", "<= 250 ns; <= 60 ns; <= 20 ns; 0 allocations each", "<= 150; <= 40; <= 15",
			r.micros(250, 60, 20), onlyMicros},
		{"an unknown key refused per second / proxied requests per second", ">= 2.5", ">= 3.5", r.refused(2.5), "go run ./bench/measure -parts solo"},
		{"keys issued per second at 64 clients / fdatasync per second; empty store, largest", ">= 1.0, >= 0.7", ">= 2", r.issue(1.0, 0.7), "go run ./bench/measure -parts issue"},
		{"latency of a lone create / fdatasync p50", "<= 6", "<= 3.5", r.lone(6), "go run ./bench/measure -parts issue"},
		{"bytes per key on disk, everything counted", "<= 200", "<= 150", r.bytes(200), "go run ./bench/fill -keys 10000000"},
		{"open to first authenticated answer, page cache dropped", "<= 250 ms", "<= 20 ms", r.open(250), "go run ./bench/measure -parts open"},
		{"anonymous memory over stock Caddy", "<= 64 MiB", "<= 32 MiB", r.memoryOver(64), onlyDuels},
		{"usage: 1M distinct keys in a minute under load", "0 lost, CPU ratio unchanged", "flush under 1 s", r.usage(1.05), "go run ./bench/measure -parts usage,duel"},
		{"kill -9 under 64 concurrent writers", "300 cycles: 0 acknowledged writes lost, 0 revived, 0 failed starts", "2,000", r.crash(300), "make crash CYCLES=300"},
		{"revoke against 64 readers on open connections", "0 of 1,000,000 accepted", "", r.race(1_000_000), "make revoke-race ROUNDS=1000"},
	}
}

// alsoLogged adds the same scenarios with the log format of this project.
func alsoLogged(names ...string) []string {
	for _, name := range names {
		names = append(names, loggedName(name))
	}
	return names
}

// misses are the scenarios in which no key is in the index.
func (r *results) misses() []string {
	return []string{
		minuteName(missName(r.Main)), minuteName(missName(r.Largest)), minuteName(loggedName(missName(r.Largest))),
		quietName(r.Main), quietName(r.Largest),
	}
}

// cpuOf lists the ratios of duels, with their quartiles.
func (r *results) cpuOf(hold float64, names ...string) (m reading) {
	for i, name := range names {
		d := r.duel(name)
		if len(d.CPU) == 0 || i > 0 && name == names[i-1] {
			continue
		}
		ratio := stats.Of(d.ratios()).Over(r.floorOf(d))
		m.add(ratio.Median, atMost(hold), "%s: %s", name, spread(ratio))
	}
	return m
}

// spread writes a median and its quartiles.
func spread(s stats.Summary) string {
	if s.N == 0 || math.IsNaN(s.Median) {
		return "not measured"
	}
	return fmt.Sprintf("%.3f (%.3f–%.3f)", s.Median, s.Q1, s.Q3)
}

func (r *results) latency(hold float64) (m reading) {
	p99 := func(s *solo) []float64 { return s.P99 }
	floor := r.soloRatio(floorName, stockName, p99)
	names := []string{hotName(10_000, r.Main), loggedName(hotName(10_000, r.Main)), hotName(10_000, r.Largest)}
	for i, name := range names {
		if s := r.soloRatio(name, stockName, p99); s.N > 0 && !slices.Contains(names[:i], name) {
			s = s.Over(floor.Median)
			m.add(s.Median, atMost(hold), "%s: %s", name, spread(s))
		}
	}
	return m
}

func (r *results) share(ofOne, ofMany float64) (m reading) {
	for _, s := range r.Shares {
		hold := ofOne
		switch s.Name {
		case hotName(10_000, r.Main):
			hold = ofMany
		case hotName(1, r.Main):
		default:
			continue
		}
		m.add(s.Handler, atMost(hold), "%s: %.2f %%, of it the check %.2f %%", s.Name, s.Handler, s.Check)
	}
	return m
}

func (r *results) micros(holds ...float64) (m reading) {
	if len(r.Go) == 0 {
		return m
	}
	for i, name := range microNames {
		b, ok := find(r.Go, name)
		if !ok || len(b.NsOp) == 0 || len(b.Alloc) == 0 {
			m.note("%s: no such benchmark", name)
			m.met = append(m.met, false)
			continue
		}
		ns, allocations := stats.Median(b.NsOp), stats.Median(b.Alloc)
		m.add(ns, func(ns float64) bool { return ns <= holds[i] && allocations == 0 }, "%s: %.1f ns, %.0f allocations", name, ns, allocations)
	}
	return m
}

// microNames are benchmarks of package apikey.
var microNames = []string{"VerifyHit/keys=1", "RefuseBadChecksum", "Use/one_key"}

func (r *results) refused(hold float64) (m reading) {
	if s := r.soloRatio(unknownName, hotName(10_000, r.Main), (*solo).rates); s.N > 0 {
		m.add(s.Median, atLeast(hold), "%s", spread(s))
	}
	return m
}

func (s *solo) rates() []float64 { return s.PerSecond }

// issue is held to one number with the first store, which is empty, and to another
// with those that have keys.
func (r *results) issue(empty, filled float64) (m reading) {
	hold := empty
	for _, i := range r.Issues {
		s := stats.Of(divide(i.Of64PerSecond, i.Syncs))
		m.add(s.Median, atLeast(hold), "%s: %s, %.0f keys/s", i.Store, spread(s), stats.Median(i.Of64PerSecond))
		hold = filled
	}
	return m
}

func (r *results) lone(hold float64) (m reading) {
	for _, i := range r.Issues {
		s := stats.Of(divide(i.Lone, i.SyncP50))
		m.add(s.Median, atMost(hold), "%s: %s, %.2f ms", i.Store, spread(s), stats.Median(i.Lone))
	}
	return m
}

func (r *results) bytes(hold float64) (m reading) {
	if len(r.Stores) > 0 {
		s := r.Stores[len(r.Stores)-1]
		each := float64(s.Bytes) / float64(s.Keys)
		m.add(each, atMost(hold), "%s keys: %.1f", s.Name, each)
	}
	return m
}

func (r *results) open(hold float64) (m reading) {
	if o := r.Opens; o != nil {
		gateway, stock := stats.Median(o.Gateway), stats.Median(o.Stock)
		m.add(gateway-stock, atMost(hold), "%s keys: %.1f ms (gateway %.1f ms, stock Caddy %.1f ms)", o.Store, gateway-stock, gateway, stock)
		m.note("opening and checking alone %.1f ms", stats.Median(o.Alone))
	}
	return m
}

func (r *results) memoryOver(hold float64) (m reading) {
	stock, ok := r.memory(stockName)
	if !ok {
		return m
	}
	for i, store := range []string{r.Main, r.Largest} {
		if ours, ok := r.memory("ours-" + store); ok && (i == 0 || store != r.Main) {
			over := ours.Anonymous - stock.Anonymous
			m.add(over, atMost(hold), "%s keys: %+.0f MiB", store, over)
		}
	}
	if ours, ok := r.memory("ours-gogc-100"); ok {
		m.note("with GOGC=100 as stock Caddy has it, %s keys: %+.0f MiB", r.Main, ours.Anonymous-stock.Anonymous)
	}
	return m
}

// usage takes the ratio for unchanged that is within what hot keys are held to.
func (r *results) usage(hold float64) (m reading) {
	if r.Usage == nil {
		return m
	}
	u := r.Usage
	most := "all"
	if u.FlushMost >= 0 {
		most = fmt.Sprintf("<= %g s", u.FlushMost)
	}
	m.add(float64(u.Lost), atMost(0), "%d keys in %.0f s: %d uses counted, %d keys with another number than one", u.Keys, u.Seconds, u.Counted, u.Lost)
	m.note("%.0f flushes, mean %.3f s, %s", u.Flushes, u.FlushMean, most)
	m.note("%.1f us of CPU each, without a proxy", u.CPU)
	if ratio := r.cpuOf(hold, freshName(r.Main)); len(ratio.parts) > 0 {
		m.note("CPU ratio, %s", ratio.text())
		m.met = append(m.met, ratio.met...)
	}
	return m
}

func (r *results) crash(cycles int) (m reading) {
	if c := r.Crash; c != nil {
		m.note("%d cycles, %d creates and %d revokes acknowledged: %d lost, %d revived, %d failed starts, %d wrong answers",
			c.Cycles, c.Creates, c.Revokes, c.Lost, c.Revived, c.FailedStarts, c.Wrong)
		m.met = []bool{c.Cycles >= cycles && c.Lost == 0 && c.Revived == 0 && c.FailedStarts == 0 && c.Wrong == 0}
	}
	return m
}

func (r *results) race(requests int) (m reading) {
	if c := r.Race; c != nil {
		m.note("%d of %d accepted (%d keys, %d lookups missed the index)", c.Accepted, c.Requests, c.Keys, c.Misses)
		m.met = []bool{c.Accepted == 0 && c.Requests >= requests}
	}
	return m
}
