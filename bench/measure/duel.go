package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/stats"
)

// duel is a scenario against stock Caddy: both loaded at once, on one core, with
// the same requests. What the machine does meanwhile befalls both, so that the
// ratio of a pair says more than either number.
type duel struct {
	Name  string
	Ours  bool      `json:",omitempty"`
	HTTP2 bool      `json:",omitempty"`
	Long  bool      `json:",omitempty"` // loaded for longer than the others
	CPU   []float64 // microseconds for each request, of each pair
	Stock []float64
	// PerSecond and StockPerSecond are the rates at which requests were
	// answered.
	PerSecond, StockPerSecond []float64

	wanted int // pairs
}

// ratios returns the processor time of each pair, relative to stock Caddy.
func (d *duel) ratios() []float64 { return divide(d.CPU, d.Stock) }

func divide(a, b []float64) []float64 {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = a[i] / b[i]
	}
	return ratios
}

// duelConnections is how many connections each side has.
const duelConnections = 16

// duels fights every scenario once a round, in another order each time.
func (l *lab) duels(ctx context.Context, stock *target, scenarios []*scenario, missing func(string, error)) []*duel {
	var all []*duel
	found := make(map[*scenario]*duel)
	for _, s := range scenarios {
		d := &duel{Name: s.name, Ours: s.ours, HTTP2: s.http2, Long: s.with.seconds > 0}
		l.progress("warming up: %s", s.name)
		if err := l.warm(ctx, stock, s); err != nil {
			missing(s.name, err)
			continue
		}
		found[s] = d
		all = append(all, d)
	}
	for round := range l.rounds {
		l.progress("duels, round %d of %d", round+1, l.rounds)
		for _, i := range rand.Perm(len(scenarios)) {
			s := scenarios[i]
			d := found[s]
			if d == nil || ctx.Err() != nil {
				continue
			}
			d.wanted++
			theirs, base, err := l.pair(ctx, stock, s)
			if err != nil {
				l.progress("a pair is left out: %v", err)
				continue
			}
			d.CPU, d.Stock = append(d.CPU, theirs.CPU), append(d.Stock, base.CPU)
			d.PerSecond, d.StockPerSecond = append(d.PerSecond, theirs.PerSecond()), append(d.StockPerSecond, base.PerSecond())
		}
	}
	for _, d := range all {
		if len(d.CPU) < d.wanted {
			missing(d.Name, leftOut{d.wanted - len(d.CPU), d.wanted})
		}
	}
	return all
}

// warm brings a scenario to where it stays: each of its hot keys is used once,
// and then a pair is loaded that does not count.
func (l *lab) warm(ctx context.Context, stock *target, s *scenario) error {
	if s.ours && s.with.hot {
		out, err := child.Command{
			Args:  []string{l.once, "-rate", "1000000", "-n", strconv.Itoa(s.with.take), s.to.address, s.with.file},
			Cores: l.loadCore,
		}.Exec(ctx).CombinedOutput()
		if err != nil {
			return fmt.Errorf("using each key once: %w: %s", err, out)
		}
	}
	short := *s
	short.with.seconds = 0
	_, _, err := l.pair(ctx, stock, &short)
	s.at = short.at
	return err
}

// pair loads a scenario and stock Caddy at once.
func (l *lab) pair(ctx context.Context, stock *target, s *scenario) (theirs, base shot, err error) {
	if err := s.to.readStore(); err != nil {
		return theirs, base, err
	}
	skip := s.first + s.at
	fire := func(t *target) (shot, error) {
		if s.http2 {
			return l.getSecure(ctx, t, s.with, duelConnections)
		}
		return l.get(ctx, t, s.with, duelConnections, skip)
	}
	var baseErr error
	var both sync.WaitGroup
	both.Go(func() { base, baseErr = fire(stock) })
	theirs, err = fire(s.to)
	both.Wait()
	if err == nil {
		err = baseErr
	}
	s.used(theirs.Requests, l.main().sample)
	return theirs, base, err
}

// floorOf returns by how much two of the same came out different: the median
// ratio of the duel between stock Caddy and itself. A long load has a floor of its own,
// where that was measured: the noise of a short one is more than what it would find.
func (r *results) floorOf(d *duel) float64 {
	floor := r.duel(floorName)
	if d.HTTP2 {
		floor = r.duel(secureFloorName)
	}
	if long := r.duel(longFloorName); d.Long && len(long.CPU) > 0 {
		floor = long
	}
	return stats.Median(floor.ratios())
}

// duel returns the duel of a name, or an empty one.
func (r *results) duel(name string) *duel {
	for _, d := range r.Duels {
		if d.Name == name {
			return d
		}
	}
	return new(duel)
}

// leftOut says that some pairs gave no result.
type leftOut [2]int

// Error implements error.
func (l leftOut) Error() string { return fmt.Sprintf("%d of %d pairs gave no result", l[0], l[1]) }
