package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/plot"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/stats"
)

// publish writes the report, its plots and the numbers behind it below a folder.
func (r *results) publish(docs string) error {
	plots := filepath.Join(docs, "benchmarks")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	for name, chart := range r.charts() {
		if err := os.WriteFile(filepath.Join(plots, name+".svg"), []byte(chart.SVG()), 0o644); err != nil {
			return err
		}
	}
	if err := r.write(filepath.Join(plots, "results.json")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "benchmarks.md"), []byte(r.markdown()), 0o644)
}

const method = `How it was measured:

- Every gateway is pinned to one core, the load and the service behind the gateways to another. That service is nginx, which answers
  by itself. A service that a gateway asks about keys runs on the gateway's core, and its processor time counts as the gateway's.
- A *duel* loads a gateway and stock Caddy at once, on one core, with the same requests: 16 connections each, and an Authorization
  header from the same file. What the machine does meanwhile befalls both. Compared is processor time (user and system) for each
  request, pair by pair. Shown are the median and the quartiles of the ratios.
- Keys have been used before, by the same client, but for those of "another key each time". That they were used again is written
  within a minute, all together, which is charged where they are loaded a minute at a time. A first use is written within a second;
  the second after the load is charged, too.
- Always a miss is 100k keys and the smallest index. It is shown with usage off, too, ten seconds at a time: the first second, after
  all other gateways, finds nothing of the store in the caches of the processor. Before each load in a duel the file is read through:
  some machines take back memory that lies idle for a minute, as a store does while others are loaded.
- *The identical pair*, stock Caddy against itself in the same run, shows the noise. Figures are divided by it, those of
  loads that last ten seconds or a minute by one of a minute, if there is one. Whatever is nearer to 1 than its quartiles are says nothing.
- Rates and latencies come from gateways that are loaded alone, in turns. They are noisier.
- "Ours" is the binary of cmd/caddy at its defaults, among them room for 32 MiB of garbage between two collections; a row with
  GOGC=100 shows what the plugin costs in a Caddy that somebody else has built. Where a row says so it has the log format of the
  README and of Caddyfile.example; the other rows have Caddy's own.
`

// markdown returns the report.
func (r *results) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Benchmarks\n")
	line("Written by `%s` on %s; [the numbers behind it](benchmarks/results.json).\n", r.Command, r.Started.Format("2 January 2006"))
	line("Machine: %d cores of %s, %d GiB, %s. %s, Caddy %s, this project at %s. %s.\n",
		r.Machine.Cores, r.Machine.Processor, r.Machine.MemoryGiB, r.Machine.Kernel, r.Machine.Go, r.Machine.Caddy, r.Machine.Project, strings.Join(r.Machine.Tools, ", "))
	line("%s", method)
	if d := r.duel(floorName); len(d.CPU) > 0 && math.Abs(r.floorOf(d)-1) > 0.03 {
		line("In this run the identical pair came to %.3f: two processes of the same program differed by as much, all the time. A third may lie\n"+
			"on either side, so that a figure may be wrong by as much, too. The table of duels has the ratios as they are beside those by the pair.\n", r.floorOf(d))
	}

	line("## What the project is held to\n")
	line("*Met* goes by the medians: all numbers of the figure hold (yes), some (partly), or none (no).\n")
	line("| figure | hold | aim | measured | met | command |\n|---|---|---|---|---|---|")
	for _, f := range r.figures() {
		measured := f.measured.text()
		if measured == "" {
			measured = "not measured in this run"
		}
		line("| %s | %s | %s | %s | %s | `%s` |", f.what, f.hold, f.aim, measured, f.measured.verdict(), strings.ReplaceAll(f.command, "|", `\|`))
	}
	r.duelTable(line)
	r.soloTable(line)
	r.otherTables(line)
	if len(r.Missing) > 0 {
		line("\n## Not measured\n")
		for _, m := range r.Missing {
			line("- %s", m)
		}
	}
	line("\nNot compared at all: h2load sends one list of headers, so HTTP/2 has one hot key; nothing here tells how a gateway scales to many cores;\n" +
		"KrakenD and caddy-jwt, which the module proxy refused in each version that was tried, Tyk, where it gave only 1.9.1 of those, and Traefik,\n" +
		"of which it lacked parts; Skipper, which keeps no keys; what Debian does not have, such as Kong and APISIX.")
	return b.String()
}

func (r *results) duelTable(line func(string, ...any)) {
	if len(r.Duels) == 0 {
		return
	}
	line("\n## Processor time for each request, against stock Caddy\n\n![plot](benchmarks/cpu.svg)\n")
	line("| gateway and load | CPU us | stock CPU us | ratio (quartiles) | by the identical pair | requests/s, both loaded | n |\n|---|---|---|---|---|---|---|")
	for _, d := range r.Duels {
		ratios := stats.Of(d.ratios())
		line("| %s | %.1f | %.1f | %s | %s | %.0f | %d |", d.Name, stats.Median(d.CPU), stats.Median(d.Stock),
			spread(ratios), spread(ratios.Over(r.floorOf(d))), stats.Median(d.PerSecond), ratios.N)
	}
}

func (r *results) soloTable(line func(string, ...any)) {
	if len(r.Solos) == 0 {
		return
	}
	line("\n## Alone, %d connections\n\n![plot](benchmarks/latency.svg)\n", soloConnections)
	line("| gateway and load | requests/s (quartiles) | p50 ms | p99 ms (quartiles) | n |\n|---|---|---|---|---|")
	for _, s := range r.Solos {
		rate, p99 := stats.Of(s.PerSecond), stats.Of(s.P99)
		line("| %s | %.0f (%.0f–%.0f) | %.2f | %.2f (%.2f–%.2f) | %d |", s.Name, rate.Median, rate.Q1, rate.Q3, stats.Median(s.P50), p99.Median, p99.Q1, p99.Q3, rate.N)
	}
}

func (r *results) otherTables(line func(string, ...any)) {
	if len(r.Shares) > 0 {
		line("\n## Where the processor time goes\n\n| load | our handlers | of it the check | our background work | garbage collection | samples |\n|---|---|---|---|---|---|")
		for _, s := range r.Shares {
			line("| %s | %.2f %% | %.2f %% | %.2f %% | %.1f %% | %d |", s.Name, s.Handler, s.Check, s.Background, s.Collector, s.Samples)
		}
	}
	if len(r.Issues) > 0 {
		line("\n## Issuing keys: POST /v1/api-keys\n\n![plot](benchmarks/issue.svg)\n")
		line("| store | keys/s, 64 clients | p99 ms | keys/s, 1 client | p50 ms | fdatasync/s | fdatasync p50 ms |\n|---|---|---|---|---|---|---|")
		for _, i := range r.Issues {
			line("| %s | %.0f | %.1f | %.0f | %.3f | %.0f | %.3f |", i.Store, stats.Median(i.Of64PerSecond), stats.Median(i.Of64P99),
				stats.Median(i.LonePerSecond), stats.Median(i.Lone), stats.Median(i.Syncs), stats.Median(i.SyncP50))
		}
	}
	if len(r.Stores) > 0 {
		line("\n## Stores\n\n| keys | bytes | bytes a key | filled at keys/s |\n|---|---|---|---|")
		for _, s := range r.Stores {
			rate := "from an earlier run"
			if s.KeysPerSecond > 0 {
				rate = fmt.Sprintf("%.0f", s.KeysPerSecond)
			}
			line("| %s | %d | %.1f | %s |", s.Name, s.Bytes, float64(s.Bytes)/float64(s.Keys), rate)
		}
	}
	if o := r.Opens; o != nil {
		line("\n## A cold start with %s keys\n\n| | median ms (quartiles) |\n|---|---|", o.Store)
		for _, row := range []struct {
			name   string
			series []float64
		}{{"ours, process start to first 200", o.Gateway}, {"stock Caddy, the same", o.Stock}, {"opening the store and checking a key, alone", o.Alone}} {
			s := stats.Of(row.series)
			line("| %s | %.1f (%.1f–%.1f) |", row.name, s.Median, s.Q1, s.Q3)
		}
		line("\nOurs had read %.1f MiB from the disk by then.", stats.Median(o.ReadMiB))
	}
	if len(r.Memories) > 0 {
		line("\n## Memory after the load\n\n| gateway | anonymous MiB | resident MiB |\n|---|---|---|")
		for _, m := range r.Memories {
			line("| %s | %.0f | %.0f |", m.Name, m.Anonymous, m.Resident)
		}
		line("\nResident includes pages of the store's file, which the system takes back when it needs them.")
	}
	benchTable(line, "Parts", r.Go)
	benchTable(line, "The index and the obvious ones", r.Index)
}

func benchTable(line func(string, ...any), title string, all []goBench) {
	if len(all) == 0 {
		return
	}
	line("\n## %s\n\n| benchmark | ns/op (quartiles) | allocations |\n|---|---|---|", title)
	for _, b := range all {
		s, allocations := stats.Of(b.NsOp), "–"
		if len(b.Alloc) > 0 {
			allocations = fmt.Sprintf("%.0f", stats.Median(b.Alloc))
		}
		line("| %s | %.1f (%.1f–%.1f) | %s |", b.Name, s.Median, s.Q1, s.Q3, allocations)
	}
}

// charts returns the plots by the names of their files.
func (r *results) charts() map[string]plot.Chart {
	charts := make(map[string]plot.Chart)
	bar := func(name string, s stats.Summary, strong bool) plot.Bar {
		return plot.Bar{Label: name, Low: s.Q1, Median: s.Median, High: s.Q3, Strong: strong}
	}
	var cpu, latency, issue []plot.Bar
	for _, d := range r.Duels {
		cpu = append(cpu, bar(d.Name, stats.Of(d.ratios()).Over(r.floorOf(d)), d.Ours))
	}
	for _, s := range r.Solos {
		ours := s.Name != stockName && s.Name != floorName
		latency = append(latency, bar(s.Name, stats.Of(s.P99), ours))
	}
	for _, i := range r.Issues {
		issue = append(issue, bar("64 clients, store: "+i.Store, stats.Of(i.Of64PerSecond), true),
			bar("1 client, store: "+i.Store, stats.Of(i.LonePerSecond), true), bar("fdatasync of 4 KiB, that round", stats.Of(i.Syncs), false))
	}
	for _, c := range []struct {
		name  string
		chart plot.Chart
	}{
		{"cpu", plot.Chart{Title: "CPU for each request, relative to stock Caddy under the same load", Axis: "ratio by the identical pair: median, quartiles", Reference: 1, Bars: cpu}},
		{"latency", plot.Chart{Title: fmt.Sprintf("99th percentile of the latency, %d connections, loaded alone", soloConnections), Axis: "milliseconds: median of the rounds, quartiles", Bars: latency}},
		{"issue", plot.Chart{Title: "Keys issued each second over HTTP, and what the disk does", Axis: "a second: median of the rounds, quartiles", Bars: issue}},
	} {
		if len(c.chart.Bars) > 0 {
			charts[c.name] = c.chart
		}
	}
	return charts
}
