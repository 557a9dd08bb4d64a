package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wordSite has a path for each word of the gate.
const wordSite = `{
	admin {$ADMIN}
	grace_period 3s
}

http://127.0.0.1:{$PORT} {
	log {
		output file {$HOME}/access
		format filter {
			request api_key
		}
	}
	api_key_auth /observe/* {
		observe
	}
	api_key_auth /methods/* {
		read_methods GET PROPFIND
	}
	api_key_auth /routes/* {
		read_routes POST /routes/search /routes/graphql
	}
	api_key_auth /strict/* {
		require_scope read-write
	}
	api_key_auth /header/* {
		header X-API-Key
	}
	api_key_auth /forward/* {
		forward_credential
	}
	api_key_auth /handled/* {
		errors handle
	}
	api_key_auth /cors/* {
		skip_preflight
	}
	@plain path /plain/*
	api_key_auth @plain
	reverse_proxy {$UPSTREAM}
	handle_errors {
		respond "sorry: {http.auth.refused}"
	}
}
`

func TestTheWordsOfAGateDoWhatTheySay(t *testing.T) {
	g := startGateway(t, wordSite)
	read, write := g.issue(nil), g.issue(map[string]string{"scope": "read-write"})
	r, w := bearer(read), bearer(write)
	preflight := []string{"Origin: https://app.example.com", "Access-Control-Request-Method: POST"}
	for _, row := range []struct {
		method, path string
		headers      []string
		status       int
		reason       string
	}{
		{"GET", "/observe/none", nil, 200, ""},
		{"DELETE", "/observe/scope", []string{r}, 200, ""},
		{"GET", "/observe/unknown", []string{"Authorization: Bearer " + mistyped(read["key"])}, 200, ""},
		{"PROPFIND", "/methods/x", []string{r}, 200, ""},
		{"HEAD", "/methods/x", []string{r}, 403, ""},
		{"POST", "/methods/x", []string{r}, 403, "insufficient_scope"},
		{"GET", "/methods/x", []string{r, "Upgrade: websocket", "Connection: Upgrade"}, 403, "insufficient_scope"},
		{"POST", "/methods/x", []string{w}, 200, ""},
		{"PROPFIND", "/plain/x", []string{r}, 403, "insufficient_scope"},
		{"POST", "/routes/search?q=x", []string{r}, 200, ""},
		{"POST", "/routes/graphql", []string{r}, 200, ""},
		{"PUT", "/routes/search", []string{r}, 403, "insufficient_scope"},
		{"POST", "/routes/search/", []string{r}, 403, "insufficient_scope"},
		{"POST", "/routes/Search", []string{r}, 403, "insufficient_scope"},
		{"POST", "/routes/%73earch", []string{r}, 403, "insufficient_scope"},
		{"POST", "/routes//search", []string{r}, 403, "insufficient_scope"},
		{"POST", "/routes/search", nil, 401, "no_credential"},
		{"GET", "/strict/x", []string{r}, 403, "insufficient_scope"},
		{"GET", "/strict/x", []string{w}, 200, ""},
		{"GET", "/header/x", []string{"X-Api-Key: " + read["key"]}, 200, ""},
		{"GET", "/header/x", []string{"x-api-key: " + read["key"]}, 200, ""},
		{"POST", "/header/x", []string{"X-Api-Key: " + read["key"]}, 403, "insufficient_scope"},
		{"GET", "/header/x", []string{"X-Api-Key: " + read["key"], w}, 400, "invalid_request"},
		{"GET", "/header/x", []string{"X-Api-Key: x"}, 401, "invalid_token"},
		{"GET", "/header/x", []string{r}, 200, ""},
		{"GET", "/plain/x", []string{"X-Api-Key: " + read["key"]}, 401, "no_credential"},
		{"GET", "/plain/x", []string{"X-Api-Key: " + write["key"], r}, 200, ""},
		{"GET", "/forward/x", []string{r}, 200, ""},
		{"OPTIONS", "/cors/x", preflight, 200, ""},
		{"OPTIONS", "/cors/x", preflight[:1], 401, "no_credential"},
		{"POST", "/cors/x", preflight, 401, "no_credential"},
		{"OPTIONS", "/cors/x", append(preflight[:2:2], "Upgrade: websocket", "Connection: Upgrade"), 401, "no_credential"},
		{"OPTIONS", "/plain/x", preflight, 401, "no_credential"},
		{"GET", "/handled/x", []string{r}, 200, ""},
	} {
		g.upstream.seen()
		a := g.do(row.method, row.path, "", append([]string{"X-User-Id: root", "x_user_id: root", "X-Api-Key-Scope: read-write"}, row.headers...)...)
		seen := g.upstream.seen()
		name := fmt.Sprintf("%s %s %.30q", row.method, row.path, row.headers)
		if a.status != row.status || (len(seen) == 1) != (row.status == 200) {
			t.Errorf("%s: HTTP %d, want %d, and %d requests at the upstream: %s", name, a.status, row.status, len(seen), a.body)
			continue
		}
		if row.reason != "" {
			g.requireRefused(a, row.status, row.reason)
		}
		if len(seen) == 0 {
			continue
		}
		text := fmt.Sprint(seen[0].Header)
		if strings.Contains(text, "root") {
			t.Errorf("%s: the upstream believes %s", name, text)
		}
		if kept := strings.HasPrefix(row.path, "/forward") || row.path == "/observe/scope"; strings.Contains(text, read["key"]) != kept || strings.Contains(text, write["key"]) {
			t.Errorf("%s: the upstream received %s", name, text)
		}
	}

	for _, c := range []struct {
		method string
		header string
		status int
		body   string
	}{
		{"GET", "X-None: x", 401, "sorry: no_credential"},
		{"GET", "Authorization: Bearer x", 401, "sorry: invalid_token"},
		{"POST", r, 403, "sorry: insufficient_scope"},
	} {
		if a := g.do(c.method, "/handled/x", "", c.header); a.status != c.status || string(a.body) != c.body || !strings.HasPrefix(a.header.Get("Www-Authenticate"), "Bearer realm") {
			t.Errorf("%s: HTTP %d %v %s", c.body, a.status, a.header, a.body)
		}
	}

	// Who would have been refused is counted, and told by route.
	metrics, log := g.get("/metrics"), g.log()
	for path, reason := range map[string]string{"/observe/none": "no_credential", "/observe/scope": "insufficient_scope", "/observe/unknown": "bad_checksum"} {
		if !strings.Contains(metrics, fmt.Sprintf("caddy_api_keys_observed_refusals_total{outcome=\"refused\",reason=%q} 1\n", reason)) {
			t.Errorf("%s is not counted:\n%s", reason, metrics[strings.Index(metrics, "# HELP caddy_api_keys_observed"):][:600])
		}
		found := false
		for line := range strings.Lines(log) {
			found = found || strings.Contains(line, `"would refuse"`) && strings.Contains(line, fmt.Sprintf("%q", path)) && strings.Contains(line, fmt.Sprintf(`"reason":%q`, reason))
		}
		if !found {
			t.Errorf("the log does not say that %s would be refused for %s", path, reason)
		}
	}
	if used := g.look(write["id"]); used["lastUsedAt"] == "" {
		t.Error("the use was not recorded")
	}
}

// That no file has a token is checked of every gateway; here they are in all
// places of a request.
func TestTheFilteredAccessLogShowsNoTokenWhereverItStands(t *testing.T) {
	g := startGateway(t, wordSite)
	key := g.issue(nil)
	token := key["key"]
	for _, path := range []string{"/plain/x?key=" + token, "/plain/" + token + "/x", "/plain/x?a=b&key=" + strings.ReplaceAll(token, "_", "%5F")} {
		g.requireStatus(200, "GET", path, token)
		g.requireStatus(401, "GET", path, "")
	}
	for _, header := range []string{"X-Api-Key: " + token, "Referer: https://example.com/?key=" + token, "X-Other: " + token, "Cookie: key=" + token, "User-Agent: " + token} {
		g.do("GET", "/plain/x", "", header)
	}
	g.do("GET", "/plain/x", "", "X-Api-Key: somebody-elses-secret")
	var text string
	waitFor(t, "the access log", func() bool {
		content, err := os.ReadFile(filepath.Join(g.home, "access"))
		text = string(content)
		return err == nil && strings.Count(text, "\n") == 12
	})
	for _, part := range []string{`"uri":"/plain/x?key=ak_REDACTED"`, `/plain/ak_REDACTED/x`, `"X-Other":["ak_REDACTED"]`, `"User-Agent":["ak_REDACTED"]`, fmt.Sprintf(`"api_key_id":%q`, key["id"]), `"user_id":"alice"`} {
		if !strings.Contains(text, part) {
			t.Errorf("the access log does not have %s:\n%s", part, text)
		}
	}
	if strings.Contains(text, "somebody-elses-secret") {
		t.Error("the access log shows a key of another make")
	}
}
