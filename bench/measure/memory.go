package main

import "github.com/caddy-apikeys/caddy-apikeys/bench/internal/proc"

// memory is what a gateway takes after all the load that it had in the run.
type memory struct {
	Name                string
	Anonymous, Resident float64 // MiB
}

const mib = 1 << 20

// memories looks at stock Caddy and at the gateways of ours, once each.
func memories(stock *target, scenarios []*scenario, missing func(string, error)) (all []memory) {
	seen := make(map[*target]bool)
	look := func(name string, t *target) {
		if seen[t] {
			return
		}
		seen[t] = true
		m, err := proc.MemoryOf(t.processes[0].PID())
		if err != nil {
			missing("memory of "+name, err)
			return
		}
		all = append(all, memory{Name: name, Anonymous: float64(m.Anonymous) / mib, Resident: float64(m.Resident) / mib})
	}
	look(stockName, stock)
	for _, s := range scenarios {
		if s.ours || s.name == floorName || s.name == roomyStockName {
			look(s.to.name, s.to)
		}
	}
	return all
}

func (r *results) memory(name string) (memory, bool) {
	for _, m := range r.Memories {
		if m.Name == name {
			return m, true
		}
	}
	return memory{}, false
}
