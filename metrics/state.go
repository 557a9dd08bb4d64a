package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// scrapeTimeout bounds what a scrape waits for the store.
const scrapeTimeout = 2 * time.Second

var (
	keysDesc = describe("keys", "Keys in the store by state: issued (all of them), revoked, and, of the others, expired and expiring within 7 days as of the last count.", "state")
	ageDesc  = describe("keys_counted_timestamp_seconds", "When the expired and expiring keys were last counted.")

	entriesDesc = describe("index_entries", "Keys that are answered from memory.")
	hitsDesc    = describe("index_hits_total", "Lookups that were answered from memory.")
	missesDesc  = describe("index_misses_total", "Lookups that had to ask the store.")
	pendingDesc = describe("usage_pending", "Keys with usage that is not in the store yet.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)
}

// state reads the series that are kept elsewhere when they are asked for.
type state struct {
	keyring func() *apikey.Keyring
}

// RegisterState adds to the registry of a configuration the series that are read
// from a Keyring at each scrape. keyring returns nil while there is none.
func RegisterState(registry *prometheus.Registry, keyring func() *apikey.Keyring) error {
	if registry == nil {
		return nil
	}
	return register(registry, state{keyring})
}

// Describe implements prometheus.Collector.
func (state) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{keysDesc, ageDesc, entriesDesc, hitsDesc, missesDesc, pendingDesc} {
		descs <- d
	}
}

// Collect implements prometheus.Collector. What the store does not answer is
// left out: one missing series must not take all the others with it.
func (s state) Collect(series chan<- prometheus.Metric) {
	keyring := s.keyring()
	if keyring == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		series <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	index := keyring.IndexStats()
	gauge(entriesDesc, float64(index.Entries))
	gauge(pendingDesc, float64(index.Pending))
	series <- prometheus.MustNewConstMetric(hitsDesc, prometheus.CounterValue, float64(index.Hits))
	series <- prometheus.MustNewConstMetric(missesDesc, prometheus.CounterValue, float64(index.Misses))

	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	keys, err := keyring.Stats(ctx)
	if err != nil {
		return
	}
	gauge(keysDesc, float64(keys.Issued), "issued")
	gauge(keysDesc, float64(keys.Revoked), "revoked")
	if !keys.CountedAt.IsZero() {
		gauge(keysDesc, float64(keys.Expired), "expired")
		gauge(keysDesc, float64(keys.ExpiringSoon), "expiring_7d")
		gauge(ageDesc, float64(keys.CountedAt.UnixMilli())/1000)
	}
}
