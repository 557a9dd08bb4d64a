package caddymodule_test

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// cut takes the content out of the key store while it is in use, and returns how
// to put it back.
func (g *gateway) cut() (restore func()) {
	g.Helper()
	content, err := os.ReadFile(g.storePath())
	if err == nil {
		err = os.Truncate(g.storePath(), 0)
	}
	if err != nil {
		g.Fatal(err)
	}
	// The failure of a write makes the gateway let go of the file. Otherwise one
	// in the background could meet it half restored.
	if a := g.operate("POST", "/api_keys/organizations/acme/keys", `{"name":"lost","userId":"alice"}`, asJSON); a.Status != 503 {
		g.Fatalf("a write to an empty file: %d %s", a.Status, a.Text)
	}
	return func() {
		g.Helper()
		if err := os.WriteFile(g.storePath(), content, 0o600); err != nil {
			g.Fatal(err)
		}
		g.await("the store to be back", func() bool { ready, _ := g.ready(); return ready })
	}
}

func TestWithoutItsStoreTheGateKnowsTheKeysInItsIndexAndOpensForNobodyElse(t *testing.T) {
	g := start(t, ``, site)
	used, written, unused := g.issue(reader), g.issue(writer), g.issue(reader)
	expiring := g.issue(`"userId":"alice","expiresAt":"` + time.Now().Add(1500*time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z") + `"`)
	for _, k := range []key{used, written, expiring} {
		g.passed(g.send("GET", "/", "", k.header()))
	}
	// What is not in the store yet comes there when it is back.
	if err := running(t).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	restore := g.cut()

	start := time.Now()
	for range 50 {
		g.passed(g.send("GET", "/", "", used.header()))
		g.passed(g.send("POST", "/", "", written.header()))
		// Good or not, it cannot be found out.
		for _, token := range []string{unused.Token, forge(swap(idOf(used.Token), 20), secretOf(used.Token))} {
			a := g.send("GET", "/", "", "Authorization: Bearer "+token)
			g.refused(a, 503, "store_unavailable", noChallenge)
			if a.Header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After in %v", a.Header)
			}
		}
		// Nobody has to be asked about these.
		g.refused(g.send("GET", "/", "", "Authorization: Bearer "+swap(used.Token, 70)), 401, "invalid_token", invalidToken)
		g.refused(g.send("GET", "/", "", "Authorization: Bearer "+forge(idOf(used.Token), swap(secretOf(used.Token), 3))), 401, "invalid_token", invalidToken)
		g.refused(g.send("GET", "/", ""), 401, "no_credential", plainBearer)
		g.refused(g.send("POST", "/", "", used.header()), 403, "insufficient_scope", `Bearer realm="api", error="insufficient_scope"`)
	}
	g.await("the key to expire", func() bool { return g.send("GET", "/", "", expiring.header()).Status == 401 })
	g.upstream.take()

	for _, call := range []string{"POST /v1/api-keys", "GET /v1/api-keys", "GET /v1/api-keys/" + used.ID, "DELETE /v1/api-keys/" + used.ID} {
		method, path, _ := strings.Cut(call, " ")
		g.refused(g.send(method, path, `{"name":"x"}`, written.header(), asJSON), 503, "store_unavailable", noChallenge)
	}
	g.refused(g.send("GET", "/v1/api-keys", "", unused.header()), 503, "store_unavailable", noChallenge)
	if ready, reason := g.ready(); ready || !strings.Contains(reason, g.storePath()) {
		t.Errorf("ready: %v, %q", ready, reason)
	}
	series := g.metrics()
	if number(t, series[`caddy_api_keys_verdicts_total{outcome="unavailable",reason="store_unavailable"}`]) < 100 ||
		number(t, series[`caddy_api_keys_store_operation_duration_seconds_count{driver="bolt",operation="lookup",result="error"}`]) < 100 {
		t.Errorf("the metrics do not show the fault: %v", series)
	}
	complaints := 0
	for _, line := range g.logged() {
		if line["msg"] == "API keys cannot be checked, requests are answered 503" {
			complaints++
		}
	}
	if most := int(time.Since(start)/time.Second) + 1; complaints < 1 || complaints > most {
		t.Errorf("%d complaints in the log, want 1 to %d", complaints, most)
	}

	restore()
	g.passed(g.send("GET", "/", "", unused.header()))
	g.refused(g.send("GET", "/", "", "Authorization: Bearer "+forge(swap(idOf(used.Token), 20), secretOf(used.Token))), 401, "invalid_token", invalidToken)
	if ready, reason := g.ready(); !ready {
		t.Error(reason)
	}
	g.revoke(used)
	g.refused(g.send("GET", "/", "", used.header()), 401, "invalid_token", invalidToken)
	if got := uses(t, written); got != 55 {
		t.Errorf("%d uses are recorded, want 51 of the gate and 4 of management", got)
	}
}

// A reload or a stop must not wait for a store that has gone.
func TestReloadAndStopWithoutAStoreDoNotHang(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	g.passed(g.send("GET", "/", "", k.header()))
	g.cut()
	if err := g.load(``, site); err != nil {
		t.Fatal(err)
	}
	g.passed(g.send("GET", "/", "", k.header()))
	stop(t)
	if err := g.load(``, site); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("an empty store was opened: %v", err)
	}
}

// What is written to a file that has lost its name is lost.
func TestWithoutItsNameTheStoreTakesNoWrites(t *testing.T) {
	g := start(t, ``, site)
	write := g.issue(writer)
	g.passed(g.send("GET", "/", "", write.header()))
	aside := g.storePath() + ".aside"
	if err := os.Rename(g.storePath(), aside); err != nil {
		t.Fatal(err)
	}
	a := g.create(write, `{"name":"x"}`)
	g.refused(a, 503, "store_unavailable", noChallenge)
	if a := g.send("DELETE", "/v1/api-keys/"+write.ID, "", write.header()); a.Status != 503 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	g.passed(g.send("GET", "/", "", write.header()))
	if _, err := os.Stat(g.storePath()); err == nil {
		t.Error("another store was created")
	}
	if err := os.Rename(aside, g.storePath()); err != nil {
		t.Fatal(err)
	}
	if a := g.create(write, `{"name":"x"}`); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

// A client that leaves while its key is looked up must not raise an alarm.
func TestClientsThatLeaveDoNotLookLikeAFault(t *testing.T) {
	g := start(t, ``, "held\n"+site)
	k := g.issue(reader)
	before := g.metrics()
	conn := g.dial()
	if _, err := io.WriteString(conn, "GET /gone HTTP/1.1\r\nHost: x\r\n"+k.header()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	const allowed, unavailable = `caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`, `caddy_api_keys_verdicts_total{outcome="unavailable",reason="store_unavailable"}`
	g.await("the key to be checked", func() bool { return g.metrics()[allowed] != before[allowed] })
	if after := g.metrics(); after[unavailable] != before[unavailable] {
		t.Errorf("%s checks failed before, %s after", before[unavailable], after[unavailable])
	}
	for _, line := range g.logged() {
		if line["logger"] == "api_keys" && line["level"] == "error" {
			t.Errorf("%v", line)
		}
	}
}
