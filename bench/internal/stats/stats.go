// Package stats says what a handful of measurements has in common: the median,
// and how far the quartiles are apart.
package stats

import (
	"math"
	"slices"
)

// Summary describes a series of measurements. All of it is NaN when there were
// none.
type Summary struct {
	N                        int
	Min, Q1, Median, Q3, Max float64
}

// Of summarises a series, in any order.
func Of(series []float64) Summary {
	sorted := slices.Sorted(slices.Values(series))
	return Summary{
		N: len(sorted), Min: Quantile(sorted, 0), Q1: Quantile(sorted, 0.25), Median: Quantile(sorted, 0.5),
		Q3: Quantile(sorted, 0.75), Max: Quantile(sorted, 1),
	}
}

// Quantile returns the value below which the share q of an ascending series
// lies, between two values in proportion. It is NaN for an empty series.
func Quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below == len(sorted)-1 {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}

// Median returns the median of a series, in any order.
func Median(series []float64) float64 { return Of(series).Median }

// Over returns the summary divided by a number, as by the noise floor.
func (s Summary) Over(by float64) Summary {
	return Summary{s.N, s.Min / by, s.Q1 / by, s.Median / by, s.Q3 / by, s.Max / by}
}
