package caddymodule_test

import (
	"encoding/json"
	"net/url"
	"os"
	"strings"
	"testing"
)

// ready asks whether keys can be looked up.
func (g *gateway) ready() (bool, string) {
	g.Helper()
	a := g.operate("GET", "/api_keys/ready", "")
	var body struct {
		Ready  bool
		Reason string
	}
	if err := json.Unmarshal([]byte(a.Text), &body); err != nil {
		g.Fatal(err)
	}
	want := map[int]bool{200: true, 503: false}
	if is, known := want[a.Status]; !known || body.Ready != is || body.Ready != (body.Reason == "") || a.Header.Get("Cache-Control") != "no-store" {
		g.Errorf("%d %v %s", a.Status, a.Header, a.Text)
	}
	return body.Ready, body.Reason
}

func TestAdminRoutesAreUnavailableUntilAConfigurationUsesKeys(t *testing.T) {
	g := start(t, ``, `respond "no keys here"`)
	if ready, reason := g.ready(); ready || !strings.Contains(reason, "no running configuration uses API keys") {
		t.Errorf("ready: %v, %q", ready, reason)
	}
	for _, call := range []string{"POST /api_keys/organizations/acme/keys", "GET /api_keys/organizations/acme/keys", "GET /api_keys/keys/key_0352LEivjpyT0uQI9pd2Xs"} {
		method, path, _ := strings.Cut(call, " ")
		a := g.operate(method, path, `{"name":"x","userId":"alice"}`, asJSON)
		if a.Status != 503 || a.reason() != "store_unavailable" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", call, a.Status, a.Text)
		}
	}
	if _, err := os.Stat(g.storePath()); err == nil {
		t.Error("the store was created")
	}
	if err := g.load(``, site); err != nil {
		t.Fatal(err)
	}
	if ready, reason := g.ready(); !ready {
		t.Error(reason)
	}
	g.passed(g.send("GET", "/", "", g.issue(reader).header()))
	if err := g.load(``, `respond "no keys any more"`); err != nil {
		t.Fatal(err)
	}
	if ready, _ := g.ready(); ready {
		t.Error("ready without keys")
	}
}

// After a failed reload Caddy serves the admin routes of the configuration that
// was discarded.
func TestAdminRoutesWorkOnTheRunningConfigurationAfterAFailedReload(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	for name, config := range map[string][2]string{
		"cannot be provisioned": {``, "api_keys {\nidentity_header nobody X-Nobody\n}"},
		"cannot be opened":      {"api_keys {\nstorage bolt DIR\n}", site},
		"has no keys":           {``, "respond a\nbind 192.0.2.1"},
	} {
		if err := g.load(config[0], config[1]); err == nil {
			t.Fatalf("a configuration that %s was loaded", name)
		}
		if ready, reason := g.ready(); !ready {
			t.Errorf("%s: %s", name, reason)
		}
		if a := g.lookUp(k); a.text("id") != k.ID {
			t.Errorf("%s: %s", name, a.Text)
		}
		g.passed(g.send("GET", "/", "", g.issue(reader).header()))
		g.metrics()
	}
}

func TestOperatorActsOnTheOrganizationThatThePathNames(t *testing.T) {
	g := start(t, ``, site)
	for _, organization := range []string{"acme", "prod", "prod-other", "0", "00", "a/b", "a//b", "/", "..", ".", "%2F", "a%2Fkeys", "a?b#c", "keys", "a;b", "~!$&'()*+,;=:@"} {
		path := "/api_keys/organizations/" + strings.ReplaceAll(url.PathEscape(organization), ".", "%2E") + "/keys"
		made := g.operate("POST", path, `{"name":"x","userId":"alice"}`, asJSON)
		if made.Status != 200 || made.text("organizationId") != organization || made.text("createdBy") != "operator" || made.text("userId") != "alice" {
			t.Errorf("%s: %d %s", organization, made.Status, made.Text)
			continue
		}
		id := made.text("id")
		list := g.operate("GET", path, "")
		if items, _ := list.Data["items"].([]any); list.Status != 200 || len(items) != 1 || !strings.Contains(list.Text, id) {
			t.Errorf("%s: %d %s", organization, list.Status, list.Text)
		}
		for path, status := range map[string]int{
			path + "/" + id:                             200,
			"/api_keys/keys/" + id:                      200,
			"/api_keys/organizations/nobody/keys/" + id: 404,
			"/api_keys/organizations/prod-/keys/" + id:  404,
			"/api_keys/organizations/ACME/keys/" + id:   404,
		} {
			if a := g.operate("GET", path, ""); a.Status != status || status == 200 && a.text("organizationId") != organization {
				t.Errorf("%s: %d %s", path, a.Status, a.Text)
			}
		}
		if a := g.operate("DELETE", "/api_keys/organizations/nobody/keys/"+id, ""); a.Status != 404 {
			t.Errorf("%s: %d %s", organization, a.Status, a.Text)
		}
		g.passed(g.send("GET", "/", "", "Authorization: Bearer "+made.text("key")))
		if a := g.operate("DELETE", path+"/"+id, ""); a.Status != 200 || a.text("revokedAt") == "" {
			t.Errorf("%s: %d %s", organization, a.Status, a.Text)
		}
		g.refused(g.send("GET", "/", "", "Authorization: Bearer "+made.text("key")), 401, "invalid_token", invalidToken)
	}
}

func TestAdminPathsThatLeadNowhereAreNotFound(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	for _, path := range []string{
		"", "x", "keys", "keys/", "keys/nothing", "keys/" + k.ID + "/x", "keys/" + k.ID + "%2Fx", "keys/%2E%2E%2Fready", "Keys/" + k.ID, "ready/", "ready/x",
		"organizations", "organizations/", "organizations/acme", "organizations/acme/", "organizations/acme/key", "organizations/acme/keysx",
		"organizations/acme/keys/", "organizations/acme/keys/" + k.ID + "/x", "organizations/acme%2Fkeys/" + k.ID, "organizations/%2F/keys/" + k.ID,
	} {
		for _, method := range []string{"GET", "DELETE"} {
			a := g.operate(method, "/api_keys/"+path, `{"name":"x","userId":"alice"}`, asJSON)
			if a.Status != 404 || a.reason() != "not_found" || a.RequestID == "" {
				t.Errorf("%s %s: %d %s", method, path, a.Status, a.Text)
			}
		}
	}
	for _, path := range []string{"//keys/" + k.ID, "/organizations//keys", "/../api_keys/keys/" + k.ID} {
		if a := g.operate("GET", "/api_keys"+path, ""); a.Status == 200 {
			t.Errorf("%s: %d %s", path, a.Status, a.Text)
		}
	}
	for call, allow := range map[string]string{
		"POST /api_keys/keys/" + k.ID:               "DELETE, GET, HEAD, PATCH",
		"DELETE /api_keys/organizations/acme/keys":  "GET, HEAD, POST",
		"OPTIONS /api_keys/organizations/acme/keys": "GET, HEAD, POST",
	} {
		method, path, _ := strings.Cut(call, " ")
		if a := g.operate(method, path, "", asJSON); a.Status != 405 || a.Header.Get("Allow") != allow {
			t.Errorf("%s: %d %v", call, a.Status, a.Header)
		}
	}
	g.passed(g.send("GET", "/", "", k.header()))
}

func TestOperatorIsToldWhatIsMissing(t *testing.T) {
	g := start(t, ``, site)
	for body, field := range map[string]string{
		`{"name":"x"}`:                               "userId",
		`{"userId":"alice"}`:                         "name",
		`{"name":"x","userId":"a b"}`:                "userId",
		`{"name":"x","userId":"alice","scope":"rw"}`: "scope",
	} {
		a := g.operate("POST", "/api_keys/organizations/acme/keys", body, asJSON)
		if a.Status != 400 || a.text("field") != field || !strings.Contains(a.Message, field) {
			t.Errorf("%s: %d %s", body, a.Status, a.Text)
		}
	}
	if a := g.operate("POST", "/api_keys/organizations/a%20b/keys", `{"name":"x","userId":"alice"}`, asJSON); a.Status != 400 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

func TestPagesOfOtherSitesCannotActAsTheOperator(t *testing.T) {
	g := start(t, ``, site)
	for _, header := range []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Upgrade: websocket"} {
		headers := []string{asJSON, header}
		if strings.HasPrefix(header, "Upgrade") {
			headers = append(headers, "Connection: Upgrade")
		}
		a := g.operate("POST", "/api_keys/organizations/acme/keys", `{"name":"x","userId":"alice"}`, headers...)
		if a.Status != 403 && a.Status != 400 || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %v", header, a.Status, a.Header)
		}
	}
	for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", ""} {
		if a := g.operate("POST", "/api_keys/organizations/acme/keys", `{"name":"x","userId":"alice"}`, "Content-Type: "+contentType); a.Status != 415 {
			t.Errorf("%s: %d %s", contentType, a.Status, a.Text)
		}
	}
	if got := g.keys(); got != "0" {
		t.Errorf("%s keys were made", got)
	}
}

func TestOnlyTheSiteThatIsConfiguredServesManagement(t *testing.T) {
	g := start(t, ``, "api_key_auth\nreverse_proxy UPSTREAM")
	k := g.issue(writer)
	g.passed(g.send("POST", "/v1/api-keys", `{"name":"x"}`, k.header(), asJSON))
	if a := g.operate("POST", "/v1/api-keys", `{"name":"x"}`, k.header(), asJSON); a.Status != 404 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	g.passed(g.send("GET", "/api_keys/ready", "", k.header()))
}
