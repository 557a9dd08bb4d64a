package metrics

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// other labels the requests of all keys that have no series of their own. No key
// id has this form.
const other = "_other"

// perKey counts requests by key. Readers take no lock: the series stand in a map
// that is replaced when a key is added, at most as often as keys have room.
type perKey struct {
	requests *prometheus.CounterVec
	series   atomic.Pointer[map[apikey.ID]*keySeries]
	rest     atomic.Pointer[prometheus.Counter]
	mu       sync.Mutex // held to replace them
}

// keySeries is the series of a key.
type keySeries struct {
	prometheus.Counter
	organization string
	end          time.Time // of the key, if it has one; the lock of perKey guards it
}

func newPerKey(opts prometheus.CounterOpts) *perKey {
	p := &perKey{requests: prometheus.NewCounterVec(opts, []string{"key_id", "organization_id"})}
	p.series.Store(&map[apikey.ID]*keySeries{})
	return p
}

// Describe implements prometheus.Collector.
func (p *perKey) Describe(descs chan<- *prometheus.Desc) { p.requests.Describe(descs) }

// Collect implements prometheus.Collector. It is when keys that have expired lose
// their series: until somebody looks, there is no hurry.
func (p *perKey) Collect(series chan<- prometheus.Metric) {
	p.sweep(time.Now())
	p.requests.Collect(series)
}

func (p *perKey) count(v *apikey.Verdict, most int) {
	all := *p.series.Load()
	s, ok := all[v.KeyID]
	if !ok && len(all) < most {
		s, ok = p.add(v, most)
	}
	if ok {
		s.Inc()
	} else {
		p.others().Inc()
	}
}

func (p *perKey) add(v *apikey.Verdict, most int) (*keySeries, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := *p.series.Load()
	if s, ok := all[v.KeyID]; ok || len(all) >= most {
		return s, ok
	}
	s := &keySeries{p.requests.WithLabelValues(v.KeyID.String(), v.OrganizationID), v.OrganizationID, v.ExpiresAt}
	grown := maps.Clone(all)
	grown[v.KeyID] = s
	p.series.Store(&grown)
	return s, true
}

// others is made at its first use, so that the series is absent while every key
// has its own.
func (p *perKey) others() prometheus.Counter {
	if counter := p.rest.Load(); counter != nil {
		return *counter
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	counter := p.requests.WithLabelValues(other, other)
	p.rest.Store(&counter)
	return counter
}

// changed takes note of how a key stands now. One that has ended gives its place
// free.
func (p *perKey) changed(key *apikey.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := (*p.series.Load())[key.ID]
	switch {
	case !ok:
	case key.Active(time.Now()):
		s.end = key.ExpiresAt
	default:
		p.drop(func(id apikey.ID, _ *keySeries) bool { return id == key.ID })
	}
}

// sweep drops the series of keys that have ended by themselves.
func (p *perKey) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(func(_ apikey.ID, s *keySeries) bool { return !s.end.IsZero() && !now.Before(s.end) })
}

// keep drops all series if there are more than most. Which keys get one is then found
// out anew.
func (p *perKey) keep(most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if most > 0 && len(*p.series.Load()) <= most {
		return
	}
	p.series.Store(&map[apikey.ID]*keySeries{})
	p.rest.Store(nil)
	p.requests.Reset()
}

// drop gives the places of keys free. It needs the lock.
func (p *perKey) drop(which func(apikey.ID, *keySeries) bool) {
	var left map[apikey.ID]*keySeries
	for id, s := range *p.series.Load() {
		if !which(id, s) {
			continue
		}
		if left == nil {
			left = maps.Clone(*p.series.Load())
		}
		delete(left, id)
		p.requests.DeleteLabelValues(id.String(), s.organization)
	}
	if left != nil {
		p.series.Store(&left)
	}
}
