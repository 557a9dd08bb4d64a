package stats

import (
	"math"
	"testing"
)

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		name   string
		series []float64
		want   Summary
	}{
		{"one", []float64{3}, Summary{1, 3, 3, 3, 3, 3}},
		{"odd, out of order", []float64{5, 1, 4, 2, 3}, Summary{5, 1, 2, 3, 4, 5}},
		{"even", []float64{1, 2, 3, 4}, Summary{4, 1, 1.75, 2.5, 3.25, 4}},
		{"the same", []float64{7, 7, 7}, Summary{3, 7, 7, 7, 7, 7}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Of(c.series); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestNoMeasurementIsNotZero(t *testing.T) {
	if m := Median(nil); !math.IsNaN(m) {
		t.Errorf("the median of nothing is %v", m)
	}
}

func TestSummaryOfASeriesLeavesItsOrder(t *testing.T) {
	series := []float64{3, 1, 2}
	Of(series)
	if series[0] != 3 || series[1] != 1 {
		t.Errorf("the series is %v now", series)
	}
}

func TestOver(t *testing.T) {
	want := Summary{3, 0.5, 0.75, 1, 1.25, 1.5}
	if got := Of([]float64{1, 2, 3}).Over(2); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
