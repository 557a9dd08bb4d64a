package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/metrics"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// register returns the counters of this process, and a new registry with them.
func register(t *testing.T) (*metrics.Metrics, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	m, err := metrics.Register(registry)
	if err != nil {
		t.Fatal(err)
	}
	return m, registry
}

// gather returns the value of each series, of histograms the number of samples.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := strings.TrimPrefix(family.GetName(), "caddy_api_keys_") + " " + strings.Join(labels, " ")
			// Only one of them is set.
			series[strings.TrimSpace(name)] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return series
}

// grown returns by how much series have grown, but for those that have not.
func grown(before, after map[string]float64) map[string]float64 {
	by := make(map[string]float64)
	for name, value := range after {
		if old, known := before[name]; !known || value != old {
			by[name] = value - old
		}
	}
	return by
}

func open(t *testing.T, store apikey.Store) *apikey.Keyring {
	t.Helper()
	keyring, err := apikey.Open(store, apikey.Settings{}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyring.Close() })
	return keyring
}

// issue makes a key and returns it with the verdict on its token.
func issue(t *testing.T, keyring *apikey.Keyring) (apikey.Key, apikey.Verdict) {
	t.Helper()
	issued, err := keyring.Issue(t.Context(), apikey.Operator("acme"), apikey.Issue{Name: "test", UserID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	verdict, err := keyring.Verify(t.Context(), issued.Token)
	if err != nil || !verdict.Allowed() {
		t.Fatal(verdict.Reason, err)
	}
	return issued.Key, verdict
}

func TestEachReasonCountsUnderItsOutcome(t *testing.T) {
	m, registry := register(t)
	for _, reason := range apikey.Reasons() {
		outcome := "refused"
		switch reason {
		case apikey.ReasonNone:
			outcome = "allowed"
		case apikey.ReasonUnavailable:
			outcome = "unavailable"
		}
		before := gather(t, registry)
		m.Checked(reason, time.Millisecond)
		want := map[string]float64{
			fmt.Sprintf("verdicts_total outcome=%s reason=%s", outcome, reason): 1,
			fmt.Sprintf("check_duration_seconds outcome=%s", outcome):           1,
		}
		if got := grown(before, gather(t, registry)); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", reason, got, want)
		}
	}
}

func TestEachEventCountsOnce(t *testing.T) {
	m, registry := register(t)
	for name, event := range map[string]func(){
		"verdicts_total outcome=refused reason=insufficient_scope":                   func() { m.Refused(apikey.ReasonScope) },
		"changes_total change=issued":                                                func() { m.Changed(apikey.Change{Kind: apikey.ChangeIssued}) },
		"changes_total change=revoked":                                               func() { m.Changed(apikey.Change{Kind: apikey.ChangeRevoked}) },
		"usage_flush_duration_seconds":                                               func() { m.UsageFlushed(time.Millisecond) },
		"usage_dropped_total":                                                        func() { m.UsageDropped(1) },
		"store_operation_duration_seconds driver=bolt operation=lookup result=ok":    func() { m.StoreOperation("bolt", "lookup", time.Millisecond, nil) },
		"store_operation_duration_seconds driver=bolt operation=lookup result=error": func() { m.StoreOperation("bolt", "lookup", time.Millisecond, errors.New("no")) },
	} {
		before := gather(t, registry)
		event()
		if got := grown(before, gather(t, registry)); !maps.Equal(got, map[string]float64{name: 1}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestEverySeriesPassesTheLinter(t *testing.T) {
	m, registry := register(t)
	keyring := open(t, storagetest.NewMemory())
	if err := metrics.RegisterState(registry, func() *apikey.Keyring { return keyring }); err != nil {
		t.Fatal(err)
	}
	_, verdict := issue(t, keyring)
	m.Checked(apikey.ReasonNone, time.Millisecond)
	m.KeyAccepted(&verdict, 1000)
	m.StoreOperation("bolt", "lookup", time.Millisecond, nil)
	families, err := registry.Gather()
	// One of them comes with the first count in the background.
	for deadline := time.Now().Add(30 * time.Second); err == nil && len(families) < 14 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		families, err = registry.Gather()
	}
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if len(families) != 14 {
		t.Errorf("%d families, want 14: %v", len(families), families)
	}
}

// Caddy makes a registry for each configuration, and several modules of one may
// register.
func TestCountersOutliveARegistryAndCanBeRegisteredTwice(t *testing.T) {
	m, first := register(t)
	m.Checked(apikey.ReasonNone, time.Millisecond)
	if _, err := metrics.Register(first); err != nil {
		t.Error(err)
	}
	_, second := register(t)
	if a, b := gather(t, first), gather(t, second); !maps.Equal(a, b) || a["verdicts_total outcome=allowed reason=none"] == 0 {
		t.Errorf("%v\n%v", a, b)
	}
	keyring := func() *apikey.Keyring { return nil }
	if err := errors.Join(metrics.RegisterState(second, keyring), metrics.RegisterState(second, keyring)); err != nil {
		t.Error(err)
	}
}

func TestARegistryThatHasOurNamesForSomethingElseIsAnError(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "caddy_api_keys_verdicts_total"}))
	if _, err := metrics.Register(registry); err == nil {
		t.Error("it was registered")
	}
}

func TestNothingIsCountedWithoutMetrics(t *testing.T) {
	if m, err := metrics.Register(nil); m == nil || err != nil {
		t.Error(m, err)
	}
	if err := metrics.RegisterState(nil, nil); err != nil {
		t.Error(err)
	}
	var none *metrics.Metrics
	none.Checked(apikey.ReasonNone, 0)
	none.Refused(apikey.ReasonScope)
	none.Changed(apikey.Change{})
	none.StoreOperation("", "", 0, nil)
	none.UsageFlushed(0)
	none.UsageDropped(1)
	none.KeyAccepted(nil, 1)
	none.KeepKeys(0)
}

func TestStateIsReadWhenItIsAskedFor(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	var ring *apikey.Keyring
	if err := metrics.RegisterState(registry, func() *apikey.Keyring { return ring }); err != nil {
		t.Fatal(err)
	}
	if got := gather(t, registry); len(got) > 0 {
		t.Errorf("without a Keyring: %v", got)
	}
	ring = open(t, storagetest.NewMemory())
	key, verdict := issue(t, ring)
	other, _ := issue(t, ring)
	if _, err := ring.Revoke(t.Context(), apikey.Operator("acme"), other.ID); err != nil {
		t.Fatal(err)
	}
	ring.Use(&verdict, "192.0.2.1", "test")
	got := gather(t, registry)
	for name, want := range map[string]float64{
		"keys state=issued": 2, "keys state=revoked": 1, "index_entries": 2, "usage_pending": 1, "index_misses_total": 2, "index_hits_total": 0,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v, want %v in %v", name, value, want, got)
		}
	}
	if _, err := ring.Get(t.Context(), apikey.Operator(""), key.ID); err != nil {
		t.Error(err)
	}
}

// broken is a store that can be made to fail.
type broken struct {
	apikey.Store
	fails atomic.Bool
}

func (b *broken) View(ctx context.Context, fn func(apikey.Reader) error) error {
	if b.fails.Load() {
		return apikey.ErrUnavailable
	}
	return b.Store.View(ctx, fn)
}

// One series that cannot be had must not take all others of Caddy with it.
func TestStateLeavesOutWhatTheStoreDoesNotAnswer(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	store := &broken{Store: storagetest.NewMemory()}
	ring := open(t, store)
	if err := metrics.RegisterState(registry, func() *apikey.Keyring { return ring }); err != nil {
		t.Fatal(err)
	}
	store.fails.Store(true)
	got := slices.Sorted(maps.Keys(gather(t, registry)))
	if want := []string{"index_entries", "index_hits_total", "index_misses_total", "usage_pending"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	store.fails.Store(false)
	if got := gather(t, registry); got["keys state=issued"] != 0 || len(got) < 6 {
		t.Errorf("%v", got)
	}
}

func revoked(m *metrics.Metrics, key apikey.Key) {
	key.RevokedAt = time.Now()
	m.Changed(apikey.Change{Kind: apikey.ChangeRevoked, Key: key})
}

func TestAKeyThatHasEndedLosesItsSeries(t *testing.T) {
	m, registry := register(t)
	ring := open(t, storagetest.NewMemory())
	const most = 1000
	ends := func(kind apikey.ChangeKind, key apikey.Key, in time.Duration) {
		key.ExpiresAt = time.Now().Add(in)
		m.Changed(apikey.Change{Kind: kind, Key: key})
	}
	for _, row := range []struct {
		name string
		do   func(apikey.Key, apikey.Verdict)
		has  bool
	}{
		{"in use", func(_ apikey.Key, v apikey.Verdict) { m.KeyAccepted(&v, most) }, true},
		{"revoked", func(k apikey.Key, v apikey.Verdict) { m.KeyAccepted(&v, most); revoked(m, k) }, false},
		{"rotated without a grace", func(k apikey.Key, v apikey.Verdict) { m.KeyAccepted(&v, most); ends(apikey.ChangeRotated, k, 0) }, false},
		{"rotated with a grace", func(k apikey.Key, v apikey.Verdict) {
			m.KeyAccepted(&v, most)
			ends(apikey.ChangeRotated, k, time.Hour)
		}, true},
		{"expired", func(_ apikey.Key, v apikey.Verdict) { v.ExpiresAt = time.Now(); m.KeyAccepted(&v, most) }, false},
		{"its end was put off", func(k apikey.Key, v apikey.Verdict) {
			v.ExpiresAt = time.Now()
			m.KeyAccepted(&v, most)
			ends(apikey.ChangeUpdated, k, time.Hour)
		}, true},
	} {
		key, verdict := issue(t, ring)
		row.do(key, verdict)
		series := "key_requests_total key_id=" + key.ID.String() + " organization_id=acme"
		if _, has := gather(t, registry)[series]; has != row.has {
			t.Errorf("%s: it has a series: %v", row.name, has)
		}
		if !row.has {
			continue
		}
		ends(apikey.ChangeUpdated, key, time.Millisecond)
		for deadline := time.Now().Add(30 * time.Second); gather(t, registry)[series] != 0; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it has a series after its end", row.name)
			}
		}
	}
}

func TestAConfigurationThatAllowsFewerSeriesOfKeysBeginsThemAnew(t *testing.T) {
	m, registry := register(t)
	ring := open(t, storagetest.NewMemory())
	var verdicts [3]apikey.Verdict
	for i := range verdicts {
		_, verdicts[i] = issue(t, ring)
	}
	series := func() (n int) {
		for name := range gather(t, registry) {
			if strings.HasPrefix(name, "key_requests_total") {
				n++
			}
		}
		return n
	}
	m.KeepKeys(0)
	for _, row := range []struct {
		name              string
		most, keep, after int
	}{
		{"all have one, and as many are allowed", 3, 3, 3},
		{"more are allowed", 3, 4, 3},
		{"some have one, and as many are allowed", 2, 2, 3}, // with _other
		{"fewer are allowed", 3, 2, 0},
		{"none are allowed", 2, 0, 0},
	} {
		for i := range verdicts {
			m.KeyAccepted(&verdicts[i], row.most)
		}
		m.KeepKeys(row.keep)
		if got := series(); got != row.after {
			t.Errorf("%s: %d series, want %d", row.name, got, row.after)
		}
		m.KeepKeys(0)
	}
}

func TestSeriesOfKeysAreBoundedHoweverManyAreUsedAtOnce(t *testing.T) {
	const keys, users, rounds = 20, 8, 50
	m, registry := register(t)
	taken := 0 // by other tests: counters live as long as the process
	before := gather(t, registry)
	for name := range before {
		if strings.HasPrefix(name, "key_requests_total") && !strings.Contains(name, "_other") {
			taken++
		}
	}
	ring := open(t, storagetest.NewMemory())
	made, verdicts := make([]apikey.Key, keys), make([]apikey.Verdict, keys)
	for i := range verdicts {
		made[i], verdicts[i] = issue(t, ring)
	}
	m.KeyAccepted(&verdicts[0], 0) // none are asked for
	const most = 5
	var all sync.WaitGroup
	for range users {
		all.Go(func() {
			for range rounds {
				for i := range verdicts {
					m.KeyAccepted(&verdicts[i], taken+most)
				}
			}
		})
	}
	all.Wait()
	got := grown(before, gather(t, registry))
	sum := 0.0
	for name, value := range got {
		sum += value
		if !strings.Contains(name, "_other") && value != users*rounds {
			t.Errorf("%s is %v, want %d", name, value, users*rounds)
		}
	}
	if len(got) != most+1 || sum != keys*users*rounds {
		t.Errorf("%d series with %v requests, want %d and %d: %v", len(got), sum, most+1, keys*users*rounds, got)
	}

	// Revoked keys give their places free, and lose their series.
	for _, key := range made {
		revoked(m, key)
	}
	if now := grown(before, gather(t, registry)); len(now) != 2 { // _other and changes_total
		t.Errorf("%v", now)
	}
	m.KeyAccepted(&verdicts[keys-1], taken+most)
	if now := gather(t, registry); now["key_requests_total key_id="+made[keys-1].ID.String()+" organization_id=acme"] != 1 {
		t.Errorf("%v", now)
	}
}

func TestKeysThatComeTogetherTakeNoMorePlacesThanThereAre(t *testing.T) {
	const together, rounds = 8, 300
	m, registry := register(t)
	own := func() (n int) {
		for name := range gather(t, registry) {
			if strings.HasPrefix(name, "key_requests_total") && !strings.Contains(name, "_other") {
				n++
			}
		}
		return n
	}
	taken := own()
	ring := open(t, storagetest.NewMemory())
	made, verdicts := make([]apikey.Key, together), make([]apikey.Verdict, together)
	for i := range verdicts {
		made[i], verdicts[i] = issue(t, ring)
	}
	for range rounds {
		var all sync.WaitGroup
		start := make(chan struct{})
		for i := range verdicts {
			all.Go(func() {
				<-start
				m.KeyAccepted(&verdicts[i], taken+1)
			})
		}
		close(start)
		all.Wait()
		if got := own(); got != taken+1 {
			t.Fatalf("%d series, want %d", got, taken+1)
		}
		for _, key := range made {
			revoked(m, key)
		}
	}
}
