//go:build clients

package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// documentedSeries are the names in docs/metrics.md.
func documentedSeries(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`caddy_api_keys_[a-z_]+`).FindAllString(string(text), -1)
	slices.Sort(names)
	return slices.Compact(names)
}

func TestClientPrometheusHasEveryDocumentedSeries(t *testing.T) {
	g := startGateway(t, plainSite)
	key := g.issue(nil)
	g.requireStatus(200, "GET", "/", key["key"])
	g.requireStatus(401, "GET", "/", "")

	p := startPrometheus(t, g)
	waitFor(t, "Prometheus to see what was allowed and refused", func() bool {
		return p.value(`caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`) == "1" &&
			p.value(`caddy_api_keys_verdicts_total{outcome="refused",reason="no_credential"}`) == "1" &&
			p.value(fmt.Sprintf(`caddy_api_keys_key_requests_total{key_id=%q}`, key["id"])) == "1" &&
			p.value(`caddy_api_keys_keys{state="issued"}`) == "1" &&
			p.value(`caddy_api_keys_usage_flush_duration_seconds_count > bool 0`) == "1"
	})
	var names []string
	p.get("/api/v1/label/__name__/values", nil, &names)
	documented := documentedSeries(t)
	if len(documented) == 0 {
		t.Error("no series is documented")
	}
	for _, name := range documented {
		if !slices.Contains(names, name) && !slices.Contains(names, name+"_bucket") {
			t.Errorf("Prometheus has no series %s", name)
		}
	}
	for _, name := range names {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if strings.HasPrefix(name, "caddy_api_keys_") && !slices.Contains(documented, name) && !slices.Contains(documented, base) {
			t.Errorf("series %s is not documented", name)
		}
	}
}

func TestClientPromtoolHasNoComplaintAboutTheSeries(t *testing.T) {
	g := startGateway(t, plainSite)
	g.requireStatus(200, "GET", "/", g.issue(nil)["key"])
	var ours strings.Builder
	for line := range strings.Lines(g.get("/metrics")) {
		if strings.Contains(line, "caddy_api_keys_") {
			ours.WriteString(line)
		}
	}
	if ours.Len() == 0 {
		t.Fatal("there are no series")
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(ours.String())
	if stdout, stderr, code := g.run(cmd); code != 0 || stdout+stderr != "" {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// prometheus is a server that scrapes a gateway.
type prometheus struct {
	t   *testing.T
	url string
}

func startPrometheus(t *testing.T, g *gateway) *prometheus {
	t.Helper()
	dir, address := t.TempDir(), "127.0.0.1:"+freePort(t)
	config := filepath.Join(dir, "prometheus.yml")
	err := os.WriteFile(config, fmt.Appendf(nil, "scrape_configs:\n- job_name: gateway\n  scrape_interval: 1s\n  static_configs:\n  - targets: [%q]\n", g.admin), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("the end of the log of Prometheus:\n%s", lastLines(log.String(), 10))
		}
	})
	p := &prometheus{t, "http://" + address}
	waitFor(t, "Prometheus", func() bool {
		resp, err := http.Get(p.url + "/-/ready")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	return p
}

// get asks the HTTP API.
func (p *prometheus) get(path string, query url.Values, into any) {
	p.t.Helper()
	resp, err := http.Get(p.url + path + "?" + query.Encode())
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	answer := struct {
		Status string
		Data   any
	}{Data: into}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("%s: %v: %s", path, err, body)
	}
}

// value returns the value of the one series that a query finds.
func (p *prometheus) value(query string) string {
	p.t.Helper()
	var found struct{ Result []struct{ Value [2]any } }
	p.get("/api/v1/query", url.Values{"query": {query}}, &found)
	if len(found.Result) != 1 {
		return ""
	}
	return fmt.Sprint(found.Result[0].Value[1])
}
