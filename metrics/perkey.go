package metrics

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// other labels the requests of all keys that have no series of their own. No key
// id has this form.
const other = "_other"

// perKey counts requests by key. Readers take no lock: the counters stand in a
// map that is replaced when a key is added, at most as often as keys have room.
type perKey struct {
	requests *prometheus.CounterVec
	counters atomic.Pointer[map[apikey.ID]prometheus.Counter]
	rest     atomic.Pointer[prometheus.Counter]
	mu       sync.Mutex // held to replace the map
}

func newPerKey(opts prometheus.CounterOpts) *perKey {
	p := &perKey{requests: prometheus.NewCounterVec(opts, []string{"key_id", "organization_id"})}
	p.counters.Store(&map[apikey.ID]prometheus.Counter{})
	return p
}

func (p *perKey) count(v *apikey.Verdict, most int) {
	counters := *p.counters.Load()
	counter, ok := counters[v.KeyID]
	if !ok {
		if len(counters) < most {
			counter, ok = p.add(v, most)
		}
		if !ok {
			counter = p.others()
		}
	}
	counter.Inc()
}

func (p *perKey) add(v *apikey.Verdict, most int) (prometheus.Counter, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counters := *p.counters.Load()
	if counter, ok := counters[v.KeyID]; ok || len(counters) >= most {
		return counter, ok
	}
	counter := p.requests.WithLabelValues(v.KeyID.String(), v.OrganizationID)
	grown := maps.Clone(counters)
	grown[v.KeyID] = counter
	p.counters.Store(&grown)
	return counter, true
}

// others is made at its first use, so that the series is absent while every key
// has its own.
func (p *perKey) others() prometheus.Counter {
	if counter := p.rest.Load(); counter != nil {
		return *counter
	}
	counter := p.requests.WithLabelValues(other, other)
	p.rest.Store(&counter)
	return counter
}

// forget drops the series of a key that was revoked and gives its place free.
func (p *perKey) forget(key *apikey.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	counters := *p.counters.Load()
	if _, ok := counters[key.ID]; !ok {
		return
	}
	left := maps.Clone(counters)
	delete(left, key.ID)
	p.counters.Store(&left)
	p.requests.DeleteLabelValues(key.ID.String(), key.OrganizationID)
}
