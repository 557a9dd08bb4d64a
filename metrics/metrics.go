// Package metrics names the Prometheus series of the gateway, and counts.
//
// The counters live as long as the process: Caddy makes a new registry for every
// configuration it loads, and a counter that was born with one would fall back
// to zero at each reload. Every label has a closed set of values, but for the
// key id of the series that has to be asked for, which is bounded.
package metrics

import (
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

const (
	namespace = "caddy"
	subsystem = "api_keys"
)

// Outcome is how a check ended.
type Outcome uint8

// The outcomes of a check.
const (
	Allowed Outcome = iota
	Refused
	Unavailable

	outcomeCount
)

var outcomeNames = [outcomeCount]string{"allowed", "refused", "unavailable"}

// String returns the outcome as the label has it.
func (o Outcome) String() string { return outcomeNames[o] }

func outcomeOf(reason apikey.Reason) Outcome {
	switch reason {
	case apikey.ReasonNone:
		return Allowed
	case apikey.ReasonUnavailable:
		return Unavailable
	}
	return Refused
}

// Metrics counts what happens. Its methods are safe for concurrent use, and do
// nothing on a nil Metrics.
type Metrics struct {
	verdicts *prometheus.CounterVec
	observed *prometheus.CounterVec
	checks   *prometheus.HistogramVec
	changes  *prometheus.CounterVec
	flushes  prometheus.Histogram
	dropped  prometheus.Counter
	stores   *prometheus.HistogramVec
	perKey   *perKey

	// Resolved once: a lookup by label value would cost every request more
	// than the rest of its counting.
	verdict []prometheus.Counter // by reason
	check   [outcomeCount]prometheus.Observer
	stored  atomic.Pointer[map[operation]prometheus.Observer] // those that there were
}

// operation is what happened to a store, as the labels tell it.
type operation struct{ driver, name, result string }

func newMetrics() *Metrics {
	name := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}
	}
	histogram := func(of string, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem, Name: of, Help: help, Buckets: buckets}
	}
	m := &Metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts(name("verdicts_total",
			"Checks of requests, by how they ended and why.")), []string{"outcome", "reason"}),
		observed: prometheus.NewCounterVec(prometheus.CounterOpts(name("observed_refusals_total",
			"Requests that passed a gate that only observes, and would have been refused.")), []string{"outcome", "reason"}),
		checks: prometheus.NewHistogramVec(histogram("check_duration_seconds",
			"Time that the check of a request took.",
			[]float64{5e-7, 1e-6, 5e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1}), []string{"outcome"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts(name("changes_total",
			"Changes of keys that this process made.")), []string{"change"}),
		flushes: prometheus.NewHistogram(histogram("usage_flush_duration_seconds",
			"Time that bringing the usage of keys to the store took.", storeBuckets)),
		dropped: prometheus.NewCounter(prometheus.CounterOpts(name("usage_dropped_total",
			"Uses of keys that were not recorded because the store took none for too long."))),
		stores: prometheus.NewHistogramVec(histogram("store_operation_duration_seconds",
			"Time that an operation of the key store took.", storeBuckets), []string{"driver", "operation", "result"}),
		perKey: newPerKey(prometheus.CounterOpts(name("key_requests_total",
			"Requests that a key was accepted for. Keys past the configured number are counted under _other."))),
	}
	for _, reason := range apikey.Reasons() {
		outcome := outcomeOf(reason)
		m.verdict = append(m.verdict, m.verdicts.WithLabelValues(outcome.String(), reason.String()))
		if outcome != Allowed {
			m.observed.WithLabelValues(outcome.String(), reason.String())
		}
	}
	for outcome := range outcomeCount {
		m.check[outcome] = m.checks.WithLabelValues(outcome.String())
	}
	m.stored.Store(&map[operation]prometheus.Observer{})
	for _, kind := range apikey.ChangeKinds() {
		m.changes.WithLabelValues(kind.String())
	}
	return m
}

var storeBuckets = []float64{1e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 5e-1, 1, 5}

var process = newMetrics()

// Register adds the series of this process to the registry of a configuration,
// and returns what counts them. A nil registry has nobody to read them.
func Register(registry *prometheus.Registry) (*Metrics, error) {
	if registry == nil {
		return process, nil
	}
	for _, c := range []prometheus.Collector{
		process.verdicts, process.observed, process.checks, process.changes, process.flushes, process.dropped, process.stores, process.perKey,
	} {
		if err := register(registry, c); err != nil {
			return nil, err
		}
	}
	return process, nil
}

// register treats a collector that is there already as done.
func register(registry *prometheus.Registry, c prometheus.Collector) error {
	err := registry.Register(c)
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
		return nil
	}
	return err
}

// Checked counts a check that ended with a reason and took so long.
func (m *Metrics) Checked(reason apikey.Reason, took time.Duration) {
	if m == nil {
		return
	}
	m.verdict[reason].Inc()
	m.check[outcomeOf(reason)].Observe(took.Seconds())
}

// Refused counts a refusal of what was checked before, which takes no time.
func (m *Metrics) Refused(reason apikey.Reason) {
	if m != nil {
		m.verdict[reason].Inc()
	}
}

// ObservedRefusal counts a request that passed and would have been refused.
func (m *Metrics) ObservedRefusal(reason apikey.Reason) {
	if m != nil {
		m.observed.WithLabelValues(outcomeOf(reason).String(), reason.String()).Inc()
	}
}

// Changed counts a change of a key.
func (m *Metrics) Changed(c apikey.Change) {
	if m == nil {
		return
	}
	m.changes.WithLabelValues(c.Kind.String()).Inc()
	m.perKey.changed(&c.Key)
}

// StoreOperation observes an operation of a driver. Its name comes from a closed
// list.
func (m *Metrics) StoreOperation(driver, name string, took time.Duration, err error) {
	if m == nil {
		return
	}
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.operation(operation{driver, name, result}).Observe(took.Seconds())
}

// operation returns the series of an operation.
func (m *Metrics) operation(o operation) prometheus.Observer {
	known := m.stored.Load()
	if series, found := (*known)[o]; found {
		return series
	}
	series := m.stores.WithLabelValues(o.driver, o.name, o.result)
	more := maps.Clone(*known)
	more[o] = series
	m.stored.CompareAndSwap(known, &more) // else another was quicker, and this one comes again
	return series
}

// UsageFlushed observes a flush of usage.
func (m *Metrics) UsageFlushed(took time.Duration) {
	if m != nil {
		m.flushes.Observe(took.Seconds())
	}
}

// UsageDropped counts uses that were not recorded.
func (m *Metrics) UsageDropped(uses int) {
	if m != nil {
		m.dropped.Add(float64(uses))
	}
}

// KeyAccepted counts a request that a key was accepted for. No more than most
// keys have a series of their own at any time; the rest share one. A most of
// zero counts nothing.
func (m *Metrics) KeyAccepted(v *apikey.Verdict, most int) {
	if m != nil && most > 0 {
		m.perKey.count(v, most)
	}
}

// KeepKeys tells how many keys have a series of their own by the configuration that
// is in force now. Those of one that had more are dropped.
func (m *Metrics) KeepKeys(most int) {
	if m != nil {
		m.perKey.keep(most)
	}
}
