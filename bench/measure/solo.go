package main

import (
	"context"
	"math/rand/v2"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/stats"
)

// solo is a gateway that is loaded alone, in turns with the others: that is what
// rates and latencies need. They are noisier than duels.
type solo struct {
	Name      string
	PerSecond []float64 // of each round
	P50, P99  []float64 // milliseconds
}

// soloConnections is how many connections a gateway has that is loaded alone.
const soloConnections = 32

// Names of gateways that are loaded alone beside the scenarios of duels.
const stockName = "stock Caddy"

// solos loads each of the scenarios that are named, and stock Caddy, once a
// round, in another order each time.
func (l *lab) solos(ctx context.Context, stock *target, scenarios []*scenario, missing func(string, error)) (all []*solo) {
	hot := hotName(10_000, l.main().String())
	named := map[string]bool{
		floorName: true, hot: true, loggedName(hot): true, hotName(10_000, l.largest().String()): true, unknownName: true, checksumName: true,
	}
	var turns []*scenario
	for _, s := range scenarios {
		if s.name == floorName {
			base := *s
			base.name, base.to = stockName, stock
			turns = append(turns, &base)
		}
		if named[s.name] {
			turns = append(turns, s)
		}
	}
	for _, s := range turns {
		all = append(all, &solo{Name: s.name})
	}
	for round := range l.rounds {
		l.progress("one at a time, round %d of %d", round+1, l.rounds)
		for _, i := range rand.Perm(len(turns)) {
			if ctx.Err() != nil {
				return all
			}
			s, err := l.get(ctx, turns[i].to, turns[i].with, soloConnections, 0)
			if err != nil {
				missing(turns[i].name+", alone", err)
				continue
			}
			all[i].PerSecond = append(all[i].PerSecond, s.PerSecond())
			all[i].P50, all[i].P99 = append(all[i].P50, s.P50), append(all[i].P99, s.P99)
		}
	}
	return all
}

func (r *results) solo(name string) *solo {
	for _, s := range r.Solos {
		if s.Name == name {
			return s
		}
	}
	return new(solo)
}

// soloRatio compares two gateways round by round. It is empty when one of them
// missed a round.
func (r *results) soloRatio(name, other string, of func(*solo) []float64) stats.Summary {
	a, b := of(r.solo(name)), of(r.solo(other))
	if len(a) != len(b) {
		return stats.Of(nil)
	}
	return stats.Of(divide(a, b))
}
