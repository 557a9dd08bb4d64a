package caddymodule_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// startWithProviders runs a site whose authentication handler takes a key, or bob
// with his password.
func startWithProviders(t testing.TB, site string) *gateway {
	t.Helper()
	g := start(t, ``, `respond ok`)
	config, err := g.config(``, `
		route {
			basic_auth {
				bob $2a$04$tUrrU830e6bsChdHdGGthO5zDQN1AjAVhpJaP5NzNKW21rQKSaYZa
			}
			`+site+`
		}`)
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte(`"providers":{`), []byte(`"providers":{"api_key":{},`), 1)
	if err := g.loadJSON(config); err != nil {
		t.Fatal(err)
	}
	return g
}

var bob = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:hiccup"))

func TestProviderAcceptsKeysBesideOtherProviders(t *testing.T) {
	g := startWithProviders(t, `respond "{http.auth.user.id} {http.auth.user.key_id} {http.auth.user.organization_id} {http.auth.user.scope}"`)
	k, account := g.issue(writer), g.issue(`"serviceAccountId":"backup"`)
	for header, want := range map[string]string{
		k.header():       "alice " + k.ID + " acme read-write",
		account.header(): "backup " + account.ID + " acme read",
		bob:              "bob {http.auth.user.key_id} {http.auth.user.organization_id} {http.auth.user.scope}",
	} {
		for _, method := range []string{"GET", "POST"} { // it looks at no scope
			if a := g.send(method, "/", "", header); a.Status != 200 || a.Text != want {
				t.Errorf("%s: %d %s, want %s", header, a.Status, a.Text, want)
			}
		}
	}
	if used := g.lookUp(k).text("lastUsedIp"); used != "127.0.0.1" {
		t.Errorf("the use was recorded with the address %q", used)
	}
}

func TestProviderRefusesAllOthersWithoutAWordInTheLog(t *testing.T) {
	g := startWithProviders(t, "reverse_proxy UPSTREAM")
	k := g.issue(reader)
	for _, headers := range [][]string{
		nil, {k.header(), k.header()}, {k.header() + " x"}, {"Authorization: Bearer "}, {"Authorization: Bearer " + swap(k.Token, 30)},
		{"Authorization: Bearer " + forge(idOf(k.Token), swap(secretOf(k.Token), 0))},
		{g.issueRevoked().header()}, {"X-Api-Key: " + k.Token}, {"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bob:wrong"))},
	} {
		a := g.send("GET", "/", "", headers...)
		if seen := g.upstream.take(); a.Status != 401 || len(seen) > 0 {
			t.Errorf("%v: %d %s, and the upstream received %v", headers, a.Status, a.Text, seen)
		}
	}
	// What a stranger sends must not fill the log.
	for _, line := range g.logged() {
		if line["level"] == "error" && !strings.Contains(line["msg"].(string), "handled request") {
			t.Errorf("%v", line)
		}
	}
}

// The authentication handler knows no other answer than 401; a site that wants
// to say what it was can look at the error.
func TestProviderTellsTheSiteThatTheStoreFails(t *testing.T) {
	g := startWithProviders(t, `
			reverse_proxy UPSTREAM
		}
		handle_errors {
			respond "{http.auth.api_key.error}" 503`)
	used, unused := g.issue(reader), g.issue(reader)
	g.passed(g.send("GET", "/", "", used.header()))
	restore := g.cut()
	g.passed(g.send("GET", "/", "", used.header()))
	if a := g.send("GET", "/", "", unused.header()); a.Status != 503 || a.Text != "key store unavailable" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	restore()
}

func TestProviderHasNoOptions(t *testing.T) {
	for text, good := range map[string]bool{"api_key": true, "api_key x": false, "api_key {\n}": true, "api_key {\nx\n}": false} {
		d := caddyfile.NewTestDispenser(text)
		d.Next()
		_, err := caddyfile.UnmarshalModule(d, "http.authentication.providers.api_key")
		if good != (err == nil) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The gate behind the provider adds what the provider does not do.
func TestGateBehindTheProviderSharesItsVerdict(t *testing.T) {
	g := startWithProviders(t, "api_key_auth\nreverse_proxy UPSTREAM")
	k := g.issue(reader)
	before := g.metrics()[`caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`]
	r := g.passed(g.send("GET", "/", "", k.header(), "X-User-Id: root"))
	g.tells(r, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read")
	if r.Header.Get("Authorization") != "" {
		t.Errorf("the upstream received %v", r.Header)
	}
	if after := g.metrics()[`caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`]; number(t, after)-number(t, before) != 1 {
		t.Errorf("%s verdicts before, %s after", before, after)
	}
	g.refused(g.send("POST", "/", "", k.header()), 403, "insufficient_scope", `Bearer realm="api", error="insufficient_scope"`)
	g.refused(g.send("GET", "/", "", bob), 401, "no_credential", plainBearer)
}
