package main

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestAReportOfNothingClaimsNothing(t *testing.T) {
	r := &results{Main: "1M", Largest: "10M"}
	for _, f := range r.figures() {
		if f.measured.text() != "" || f.measured.verdict() != "" {
			t.Errorf("%s: %s, met: %s", f.what, f.measured.text(), f.measured.verdict())
		}
	}
	if text := r.markdown(); strings.Count(text, "not measured in this run") != len(r.figures()) || strings.Contains(text, "NaN") {
		t.Errorf("the report is\n%s", text)
	}
	if len(r.charts()) != 0 {
		t.Error("there are plots of nothing")
	}
}

// measured is a run in which a few things were measured.
var measured = &results{
	Main: "1M", Largest: "10M",
	Duels: []*duel{
		{Name: floorName, CPU: []float64{98, 98, 98}, Stock: []float64{100, 100, 100}},
		{Name: secureFloorName, HTTP2: true, CPU: []float64{200}, Stock: []float64{100}},
		{Name: hotName(1, "1M"), Ours: true, CPU: []float64{49, 98, 147}, Stock: []float64{100, 100, 100}},
		{Name: hotName(1, "1M") + ", TLS and HTTP/2", Ours: true, HTTP2: true, CPU: []float64{300}, Stock: []float64{100}},
	},
	Solos: []*solo{
		{Name: stockName, PerSecond: []float64{100, 100}, P50: []float64{1, 1}, P99: []float64{10, 20}},
		{Name: floorName, PerSecond: []float64{100, 100}, P50: []float64{1, 1}, P99: []float64{10, 20}},
		{Name: hotName(10_000, "1M"), PerSecond: []float64{100, 200}, P50: []float64{1, 1}, P99: []float64{5, 10}},
		{Name: unknownName, PerSecond: []float64{300, 600}, P50: []float64{1, 1}, P99: []float64{1, 1}},
	},
	Memories: []memory{{Name: stockName, Anonymous: 20}, {Name: "ours-1M", Anonymous: 50}},
	Go:       []goBench{{Name: "VerifyHit/keys=1", NsOp: []float64{150}, Alloc: []float64{0}}},
	Usage:    &usageTest{Keys: 5, Counted: 5, FlushMost: -1},
	Missing:  []string{"HAProxy: it is not installed"},
}

func TestFiguresComeFromTheRun(t *testing.T) {
	text := measured.markdown()
	for _, want := range []string{
		"1 hot key of 1M: 1.000 (0.750–1.250)",      // 0.98 by the 0.98 of the identical pair
		"10k hot keys of 1M: 0.500 (0.500–0.500)",   // round by round
		"| 3.000 (3.000–3.000) |",                   // refused by proxied
		"1M keys: +30 MiB",                          // over stock
		"VerifyHit/keys=1: 150.0 ns, 0 allocations", // and what is gone is said to be
		"RefuseBadChecksum: no such benchmark",
		"5 uses counted, 0 keys with another number than one",
		"- HAProxy: it is not installed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestAnIdenticalPairThatIsNotIdenticalIsTold(t *testing.T) {
	for ratio, told := range map[float64]bool{1: false, 1.02: false, 1.07: true, 0.95: true} {
		r := results{Duels: []*duel{{Name: floorName, CPU: []float64{100 * ratio}, Stock: []float64{100}}}}
		if strings.Contains(r.markdown(), fmt.Sprintf("the identical pair came to %.3f", ratio)) != told {
			t.Errorf("at %v it is told: %v, want %v", ratio, !told, told)
		}
	}
}

func TestAFigureIsMetByAllOfItsNumbers(t *testing.T) {
	r := *measured
	r.Duels = append(r.Duels, &duel{Name: hotName(10_000, "1M"), Ours: true, CPU: []float64{200}, Stock: []float64{100}})
	r.Memories = []memory{{Name: stockName, Anonymous: 20}, {Name: "ours-1M", Anonymous: 100}}
	r.Crash = &crashTest{Cycles: 300, Revived: 1}
	want := map[string]string{
		"CPU per request": "partly", // one of two
		"p99":             "yes",
		"verify a hit":    "partly", // the others are gone
		"an unknown key":  "yes",
		"anonymous":       "no",
		"usage":           "yes",
		"kill -9":         "no",
		"share":           "", // not measured
	}
	for _, f := range r.figures() {
		for start, met := range want {
			if strings.HasPrefix(f.what, start) {
				delete(want, start)
				if got := f.measured.verdict(); got != met {
					t.Errorf("%s, %s: met is %q, want %q", f.what, f.measured.text(), got, met)
				}
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("there are no figures %v", want)
	}
}

func TestEachProtocolHasItsOwnFloor(t *testing.T) {
	d := measured.duel(hotName(1, "1M") + ", TLS and HTTP/2")
	if floor := measured.floorOf(d); floor != 2 {
		t.Errorf("the floor is %v", floor)
	}
}

func TestALongLoadIsDividedByALongPairWhereThereIsOne(t *testing.T) {
	miss := &duel{Name: minuteName(missName("1M")), Long: true, CPU: []float64{110}, Stock: []float64{100}}
	r := results{Duels: []*duel{{Name: floorName, CPU: []float64{95}, Stock: []float64{100}}, miss}}
	if floor := r.floorOf(miss); floor != 0.95 {
		t.Errorf("without a long pair the floor is %v", floor)
	}
	r.Duels = append(r.Duels, &duel{Name: longFloorName, Long: true, CPU: []float64{101}, Stock: []float64{100}})
	if floor := r.floorOf(miss); floor != 1.01 {
		t.Errorf("the floor is %v, want that of the long pair", floor)
	}
	if floor := r.floorOf(r.Duels[0]); floor != 0.95 {
		t.Errorf("the floor of a short load is %v", floor)
	}
}

func TestRowsHaveAsManyCellsAsTheirHead(t *testing.T) {
	columns := 0
	for line := range strings.Lines(measured.markdown()) {
		if !strings.HasPrefix(line, "|") {
			columns = 0
			continue
		}
		cells := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if columns == 0 {
			columns = cells
		}
		if cells != columns {
			t.Errorf("%d instead of %d bars in %s", cells, columns, line)
		}
	}
}

func TestResultsSurviveTheirFile(t *testing.T) {
	path := t.TempDir() + "/results.json"
	if err := measured.write(path); err != nil {
		t.Fatal(err)
	}
	again, err := readResults(path)
	if err != nil || !reflect.DeepEqual(again, measured) {
		t.Errorf("got %+v, %v", again, err)
	}
	if text, err := json.Marshal(measured); err != nil || strings.Contains(string(text), "NaN") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestARoundThatWasMissedComparesNothing(t *testing.T) {
	r := &results{Solos: []*solo{{Name: "a", P99: []float64{1, 2}}, {Name: "b", P99: []float64{1}}}}
	if s := r.soloRatio("a", "b", func(s *solo) []float64 { return s.P99 }); !math.IsNaN(s.Median) {
		t.Errorf("got %+v", s)
	}
}

func TestShortNumbers(t *testing.T) {
	for n, want := range map[int]string{1: "1", 999: "999", 10_000: "10k", 1_500: "1500", 1_000_000: "1M", 10_000_000: "10M", 1_500_000: "1500k"} {
		if got := short(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestAMisspelledTokenHasOneOtherCharacter(t *testing.T) {
	for _, token := range []string{"ak_0123456789", "AAAAAAAA"} {
		got, changed := misspell(token), 0
		for i := range token {
			if got[i] != token[i] {
				changed++
			}
		}
		if len(got) != len(token) || changed != 1 {
			t.Errorf("%s became %s", token, got)
		}
	}
}
