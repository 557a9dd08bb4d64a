package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func wellFormed(t *testing.T, document string) {
	t.Helper()
	in := xml.NewDecoder(strings.NewReader(document))
	for {
		if _, err := in.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
	}
}

func TestChartsAreWellFormedWhateverTheyShow(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		name  string
		chart Chart
	}{
		{"empty", Chart{Title: "nothing"}},
		{"markup in texts", Chart{Title: `<a> & "b"`, Axis: "x < y", Bars: []Bar{{Label: "</svg>", Low: 1, Median: 2, High: 3}}}},
		{"nothing measured", Chart{Title: "t", Bars: []Bar{{Label: "a", Low: nan, Median: nan, High: nan}}}},
		{"all zero", Chart{Title: "t", Bars: []Bar{{Label: "a"}}}},
		{"tiny and huge", Chart{Title: "t", Reference: 1, Bars: []Bar{{Label: "a", Median: 1e-9, High: 2e-9}, {Label: "b", Median: 1e9, High: 2e9, Strong: true}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := c.chart.SVG()
			wellFormed(t, text)
			if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
				t.Errorf("a number is none:\n%s", text)
			}
		})
	}
}

func TestBarsAreAsLongAsTheirNumbers(t *testing.T) {
	text := Chart{Bars: []Bar{{Label: "one", Median: 1}, {Label: "two", Median: 2}}}.SVG()
	for _, want := range []string{`width="225.0"`, `width="450.0"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}

func TestStepsAreRoundNumbers(t *testing.T) {
	for length, want := range map[float64]float64{0: 1, 1: 0.2, 2.2: 0.5, 4: 1, 7: 1, 10: 2, 123: 20, 9000: 2000} {
		if got := niceStep(length); math.Abs(got-want) > 1e-9 {
			t.Errorf("a length of %v has steps of %v, want %v", length, got, want)
		}
	}
}
