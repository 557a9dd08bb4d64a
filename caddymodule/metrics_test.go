package caddymodule_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metrics returns the series of /metrics that are about API keys, with their
// values.
func (g *gateway) metrics() map[string]string {
	g.Helper()
	a := g.operate("GET", "/metrics", "")
	if a.Status != 200 {
		g.Fatalf("/metrics: %d %s", a.Status, a.Text)
	}
	series := make(map[string]string)
	for line := range strings.Lines(a.Text) {
		if at := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "caddy_api_keys_") {
			series[line[:at]] = strings.TrimSpace(line[at:])
		}
	}
	return series
}

// number reads the value of a series; one that is absent counts 0.
func number(t testing.TB, value string) float64 {
	t.Helper()
	if value == "" {
		return 0
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// counts returns the series that count something, with what they count.
func (g *gateway) counts(names ...string) map[string]float64 {
	g.Helper()
	counts := make(map[string]float64)
	for series, value := range g.metrics() {
		name, _, _ := strings.Cut(series, "{")
		if slices.Contains(names, strings.TrimPrefix(name, "caddy_api_keys_")) {
			counts[series] = number(g, value)
		}
	}
	return counts
}

// grown returns by how much series have grown, but for those that have not.
func grown(before, after map[string]float64) map[string]float64 {
	by := make(map[string]float64)
	for series, value := range after {
		if value != before[series] {
			by[series] = value - before[series]
		}
	}
	return by
}

func TestEveryVerdictIsCountedOnceUnderItsReason(t *testing.T) {
	g := start(t, ``, `
		api_keys {
			organization acme
		}
		reverse_proxy UPSTREAM`)
	k, write := g.issue(reader), g.issue(writer)
	other, expired, revoked := g.issueFor("globex", reader), g.issueExpired(), g.issueRevoked()
	for _, row := range []struct {
		outcome, reason, call string
		headers               []string
	}{
		{"allowed", "none", "GET /", []string{k.header()}},
		{"allowed", "none", "GET /v1/api-keys", []string{write.header()}},
		{"refused", "no_credential", "GET /", nil},
		{"refused", "no_credential", "GET /v1/api-keys", nil},
		{"refused", "ambiguous_credential", "GET /", []string{k.header(), k.header()}},
		{"refused", "malformed", "GET /", []string{"Authorization: Bearer x"}},
		{"refused", "bad_checksum", "GET /", []string{"Authorization: Bearer " + swap(k.Token, 70)}},
		{"refused", "unknown", "GET /", []string{"Authorization: Bearer " + forge(idOf(k.Token), swap(secretOf(k.Token), 0))}},
		{"refused", "expired", "GET /", []string{expired.header()}},
		{"refused", "revoked", "GET /", []string{revoked.header()}},
		{"refused", "insufficient_scope", "POST /", []string{k.header()}},
		{"refused", "organization_not_admitted", "GET /", []string{other.header()}},
		{"refused", "organization_not_admitted", "GET /v1/api-keys", []string{other.header()}},
	} {
		before := g.counts("verdicts_total", "check_duration_seconds_count")
		method, path, _ := strings.Cut(row.call, " ")
		g.send(method, path, "", row.headers...)
		want := map[string]float64{
			fmt.Sprintf(`caddy_api_keys_verdicts_total{outcome=%q,reason=%q}`, row.outcome, row.reason): 1,
			fmt.Sprintf(`caddy_api_keys_check_duration_seconds_count{outcome=%q}`, row.outcome):         1,
		}
		if got := grown(before, g.counts("verdicts_total", "check_duration_seconds_count")); !maps.Equal(got, want) {
			t.Errorf("%s with %v: %v, want %v", row.call, row.headers, got, want)
		}
	}
}

// The check is done and counted by then, and takes no time again.
func TestARefusalByASecondGateIsCountedToo(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth
			api_key_auth {
				require_scope read-write
			}
			reverse_proxy UPSTREAM
		}`)
	k := g.issue(reader)
	before := g.counts("verdicts_total", "check_duration_seconds_count")
	g.refused(g.send("GET", "/", "", k.header()), 403, "insufficient_scope", insufficient)
	want := map[string]float64{
		`caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`:               1,
		`caddy_api_keys_verdicts_total{outcome="refused",reason="insufficient_scope"}`: 1,
		`caddy_api_keys_check_duration_seconds_count{outcome="allowed"}`:               1,
	}
	if got := grown(before, g.counts("verdicts_total", "check_duration_seconds_count")); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestMetricsHaveEverySeriesAndPassTheLinter(t *testing.T) {
	g := start(t, `
		api_keys {
			per_key_metrics 1000
		}`, site)
	before := g.counts("changes_total")
	k := g.issue(reader)
	g.issueRevoked()
	g.send("GET", "/", "", k.header())
	if err := running(t).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{`caddy_api_keys_changes_total{change="issued"}`: 2, `caddy_api_keys_changes_total{change="revoked"}`: 1}
	if got := grown(before, g.counts("changes_total")); !maps.Equal(got, want) {
		t.Errorf("changes: %v, want %v", got, want)
	}
	g.await("the first count of expired keys", func() bool { return g.metrics()["caddy_api_keys_keys_counted_timestamp_seconds"] != "" })
	series := g.metrics()
	for name, want := range map[string]string{
		`keys{state="issued"}`: "2", `keys{state="revoked"}`: "1", `keys{state="expired"}`: "", `keys{state="expiring_7d"}`: "", "keys_counted_timestamp_seconds": "",
		"index_entries": "", "index_hits_total": "", "index_misses_total": "", "usage_pending": "0", "usage_flush_duration_seconds_count": "", "usage_dropped_total": "",
		`store_operation_duration_seconds_count{driver="bolt",operation="issue",result="ok"}`:  "",
		`store_operation_duration_seconds_count{driver="bolt",operation="revoke",result="ok"}`: "",
		`store_operation_duration_seconds_count{driver="bolt",operation="lookup",result="ok"}`: "",
		`store_operation_duration_seconds_count{driver="bolt",operation="flush",result="ok"}`:  "",
		`key_requests_total{key_id="` + k.ID + `",organization_id="acme"}`:                     "1",
	} {
		got, there := series["caddy_api_keys_"+name]
		if !there || want != "" && got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	var ours strings.Builder
	for line := range strings.Lines(g.operate("GET", "/metrics", "").Text) {
		if strings.Contains(line, "caddy_api_keys_") {
			ours.WriteString(line)
		}
	}
	problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func TestCountersSurviveAReload(t *testing.T) {
	g := start(t, ``, site)
	k := g.issueRevoked()
	for range 5 {
		g.send("GET", "/", "", k.header())
	}
	lasting := []string{"verdicts_total", "check_duration_seconds_count", "changes_total", "usage_flush_duration_seconds_count"}
	before := g.counts(lasting...)
	for range 3 {
		if err := g.load(``, site); err != nil {
			t.Fatal(err)
		}
	}
	after := g.counts(lasting...)
	for series, value := range before {
		if after[series] < value || value == 0 && after[series] != 0 {
			t.Errorf("%s was %v, and is %v", series, value, after[series])
		}
	}
	g.send("GET", "/", "", k.header())
	revoked := `caddy_api_keys_verdicts_total{outcome="refused",reason="revoked"}`
	if now := g.counts(lasting...); now[revoked] != before[revoked]+1 {
		t.Errorf("%s was %v, and is %v after one more", revoked, before[revoked], now[revoked])
	}
}

// Caddy goes on with the admin endpoint of the configuration that it refused.
func TestMetricsTellOfTheConfigurationInForceAfterAReloadThatFailed(t *testing.T) {
	g := start(t, ``, site)
	g.issueRevoked()
	const keys = `caddy_api_keys_keys{state="issued"}`
	for range 3 { // Caddy starts apps in any order
		if err := g.load("api_keys {\nstorage bolt DIR/other.db\n}", site+"\nreverse_proxy {\nto UPSTREAM\nhealth_uri /\nhealth_body (\n}"); err == nil {
			t.Fatal("a bad configuration was loaded")
		}
		series := g.metrics()
		if series[keys] != "1" || series["caddy_api_keys_index_entries"] == "" {
			t.Errorf("%d series, and %s is %q", len(series), keys, series[keys])
		}
	}
	g.issue(reader)
	if got := g.metrics()[keys]; got != "2" {
		t.Errorf("%s is %s after one more", keys, got)
	}
	if _, err := os.Stat(filepath.Join(g.dir, "other.db")); err == nil {
		t.Error("a store was opened")
	}
}

func TestStrangersCannotGrowAnySeries(t *testing.T) {
	g := start(t, allowHTTP2+`
		api_keys {
			per_key_metrics 1000
		}`, site)
	k := g.issue(reader)
	g.send("GET", "/", "", k.header())
	g.send("POST", "/", "", k.header())
	g.send("GET", "/", "", "Authorization: Bearer "+forge(swap(idOf(k.Token), 20), secretOf(k.Token)))
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		letters := make([]byte, 1+random.IntN(30))
		for i := range letters {
			letters[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[random.IntN(52)]
		}
		return string(letters)
	}
	before := g.metrics()
	for range 100 {
		id := fmt.Sprintf("03%020d", random.Int64())
		g.send(text(), "/"+text()+"?"+text(), text(), "Authorization: Bearer "+forge(id, strings.Repeat("0", 43)), "User-Agent: "+text(), "X-Organization-Id: "+text(), text()+": "+text())
		g.send("GET", "/v1/api-keys/key_"+id, "", "Authorization: "+text()+" "+text(), "Host: "+text())
		g.send(text(), "/v1/api-keys", text(), k.header())
	}
	g.overHTTP2()
	g.send("GET", "/", "", "Authorization: Bearer \xff\xfe", "User-Agent: \xff")
	after := g.metrics()
	for series := range after {
		if _, known := before[series]; !known {
			t.Errorf("a new series: %s", series)
		}
	}
}

func TestKeysHaveASeriesOfTheirOwnUpToTheConfiguredNumber(t *testing.T) {
	const per = "caddy_api_keys_key_requests_total"
	g := start(t, ``, site)
	series := func(k key) string {
		return fmt.Sprintf(`%s{key_id=%q,organization_id="acme"}`, per, k.ID)
	}
	const other = per + `{key_id="_other",organization_id="_other"}`
	taken := 0 // by keys of other tests: counters live as long as the process
	for name := range g.counts("key_requests_total") {
		if name != other {
			taken++
		}
	}
	keys := make([]key, 5)
	for i := range keys {
		keys[i] = g.issue(reader)
		g.send("GET", "/", "", keys[i].header())
		if got := g.counts("key_requests_total"); got[series(keys[i])] != 0 {
			t.Errorf("a series without being asked for: %v", got)
		}
	}
	if err := g.load(fmt.Sprintf("api_keys {\nper_key_metrics %d\n}", taken+3), site); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]float64, send ...key) {
		t.Helper()
		before := g.counts("key_requests_total")
		for _, k := range send {
			g.send("GET", "/", "", k.header())
		}
		if got := grown(before, g.counts("key_requests_total")); !maps.Equal(got, want) {
			t.Errorf("grown by %v, want %v", got, want)
		}
	}
	check(map[string]float64{series(keys[0]): 2, series(keys[1]): 1, series(keys[2]): 1, other: 3}, keys[0], keys[1], keys[2], keys[3], keys[0], keys[4], keys[3])
	// Only what is accepted counts.
	g.send("POST", "/", "", keys[0].header())
	g.send("GET", "/", "", keys[0].header(), keys[0].header())
	check(map[string]float64{series(keys[2]): 1}, keys[2])
	// A revoked key makes room.
	g.revoke(keys[1])
	if got := g.counts("key_requests_total"); got[series(keys[1])] != 0 {
		t.Errorf("the revoked key has a series: %v", got)
	}
	check(map[string]float64{series(keys[3]): 1, other: 1}, keys[3], keys[4], keys[1])
	// Management uses keys too.
	before := g.counts("key_requests_total")
	g.send("GET", "/v1/api-keys/"+keys[0].ID, "", keys[0].header())
	if got := grown(before, g.counts("key_requests_total")); !maps.Equal(got, map[string]float64{series(keys[0]): 1}) {
		t.Errorf("%v", got)
	}
}

func TestSeriesOfKeysFollowTheKeysAndTheConfiguration(t *testing.T) {
	const per = "api_keys {\nper_key_metrics 2\n}"
	g := start(t, per, site)
	series := func(k key) string {
		return fmt.Sprintf(`caddy_api_keys_key_requests_total{key_id=%q,organization_id="acme"}`, k.ID)
	}
	check := func(when string, want map[string]float64) {
		t.Helper()
		if got := g.counts("key_requests_total"); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	k := g.issue(writer)
	for range 4 {
		g.passed(g.send("GET", "/", "", k.header()))
		a := g.operate("POST", "/api_keys/keys/"+k.ID+"/rotate", `{"gracePeriod":"0"}`, asJSON)
		if a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
		k = key{a.text("id"), a.text("key")}
	}
	g.passed(g.send("GET", "/", "", k.header()))
	check("rotated four times", map[string]float64{series(k): 1})
	if err := g.load(per, site); err != nil {
		t.Fatal(err)
	}
	check("reloaded", map[string]float64{series(k): 1})
	if err := g.load(``, site+"\nreverse_proxy {\nto UPSTREAM\nhealth_uri /\nhealth_body (\n}"); err == nil {
		t.Fatal("a bad configuration was loaded")
	}
	// The endpoint that is left is that of the refused configuration.
	check("after a reload without the word that failed", map[string]float64{series(k): 1})
	if err := g.load(``, site); err != nil {
		t.Fatal(err)
	}
	g.passed(g.send("GET", "/", "", k.header()))
	check("after a reload without the word", map[string]float64{})
}
