package caddymodule_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

const observing = `
	api_keys {
		observe
	}
	reverse_proxy UPSTREAM
`

func TestObserveLetsAllPassAndCountsAndLogsWhoWouldBeRefused(t *testing.T) {
	g := start(t, ``, observing)
	read, revoked := g.issue(reader), g.issueRevoked()
	unknown := forge(swap(idOf(read.Token), 20), secretOf(read.Token))
	rows := []struct {
		name, method, header, reason string
		id                           any
	}{
		{"none", "GET", "", "no_credential", nil},
		{"another scheme", "GET", "Authorization: Basic YTpi", "no_credential", nil},
		{"two words", "GET", read.header() + " x", "ambiguous_credential", nil},
		{"unknown", "GET", "Authorization: Bearer " + unknown, "unknown", nil},
		{"revoked", "GET", revoked.header(), "revoked", nil},
		{"scope", "POST", read.header(), "insufficient_scope", read.ID},
		{"another token", "DELETE", "Authorization: Bearer somebody-elses", "malformed", nil},
	}
	before := g.metrics()
	for i, row := range rows {
		headers := []string{"X-User-Id: root", "x_api_key_id: forged", "X-Organization-Id: acme"}
		if row.header != "" {
			headers = append(headers, row.header)
		}
		path := fmt.Sprintf("/observed/%d/%s", i, read.Token)
		got := g.passed(g.send(row.method, path, "", headers...))
		if auth := strings.Join(got.Header["Authorization"], ";"); "Authorization: "+auth != row.header && auth+row.header != "" {
			t.Errorf("%s: the upstream received the credential %q", row.name, auth)
		}
		g.tells(got)
		line := g.awaitLog(func(line map[string]any) bool {
			return line["msg"] == "would refuse" && strings.HasPrefix(line["path"].(string), fmt.Sprintf("/observed/%d/", i))
		})
		if line["reason"] != row.reason || line["method"] != row.method || line["host"] != g.site || line["client_ip"] != "127.0.0.1" || line["api_key_id"] != row.id {
			t.Errorf("%s: logged %v", row.name, line)
		}
		if strings.Contains(fmt.Sprint(line), secretOf(read.Token)) {
			t.Errorf("%s: the log has a token: %v", row.name, line)
		}
	}
	counted := make(map[string]float64)
	after := g.metrics()
	for series, value := range after {
		if grown := number(t, value) - number(t, before[series]); grown != 0 && strings.Contains(series, "_total{outcome") {
			counted[series] = grown
		}
	}
	want := make(map[string]float64)
	for reason, n := range map[string]float64{"no_credential": 2, "ambiguous_credential": 1, "unknown": 1, "revoked": 1, "insufficient_scope": 1, "malformed": 1} {
		want[fmt.Sprintf("caddy_api_keys_observed_refusals_total{outcome=\"refused\",reason=%q}", reason)] = n
	}
	if !maps.Equal(counted, want) {
		t.Errorf("counted %v\nwant %v", counted, want)
	}
	if used := g.lookUp(revoked).text("lastUsedUserAgent"); used != "Go-http-client/1.1" {
		t.Errorf("last used by %q", used)
	}
	if g.lookUp(read).text("lastUsedAt") != "" {
		t.Error("a request that would be refused is a use of the key")
	}
}

func TestAcceptedKeysWorkAsEverWhileTheGateObserves(t *testing.T) {
	g := start(t, ``, observing)
	k := g.issue(writer)
	const allowed = `caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`
	before := number(t, g.metrics()[allowed])
	got := g.passed(g.send("POST", "/", "", k.header(), "X-User-Id: root"))
	g.tells(got, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read-write")
	if got.Header["Authorization"] != nil {
		t.Error("the upstream received the credential")
	}
	if g.lookUp(k).text("lastUsedAt") == "" {
		t.Error("the use was not recorded")
	}
	if got := number(t, g.metrics()[allowed]) - before; got != 1 {
		t.Errorf("counted %v verdicts", got)
	}
}

func TestManagementIsNeverObserved(t *testing.T) {
	g := start(t, ``, observing)
	k := g.issue(reader)
	g.refused(g.send("GET", "/v1/api-keys", ""), 401, "no_credential", plainBearer)
	g.refused(g.create(k, `{"name":"x"}`), 403, "insufficient_scope", `Bearer realm="api", error="insufficient_scope"`)
	g.refused(g.send("GET", "/v1/api-keys", "", "Authorization: Bearer x"), 401, "invalid_token", invalidToken)
}

func TestAStoreThatFailsRefusesNobodyWhileTheGateObserves(t *testing.T) {
	g := start(t, ``, observing)
	k := g.issue(reader)
	restore := g.cut()
	got := g.passed(g.send("GET", "/", "", k.header(), "X-User-Id: root"))
	g.tells(got)
	if !slices.Equal(got.Header["Authorization"], []string{"Bearer " + k.Token}) {
		t.Errorf("the upstream received %v", got.Header)
	}
	g.awaitLog(func(line map[string]any) bool {
		return line["msg"] == "would refuse" && line["reason"] == "store_unavailable"
	})
	restore()
}

// A second gate that observes a stricter rule counts, too.
func TestAGateThatObservesBehindAnotherCounts(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth
			api_key_auth {
				require_scope read-write
				observe
			}
			reverse_proxy UPSTREAM
		}`)
	k := g.issue(reader)
	const refused = `caddy_api_keys_observed_refusals_total{outcome="refused",reason="insufficient_scope"}`
	before := number(t, g.metrics()[refused])
	got := g.passed(g.send("GET", "/", "", k.header()))
	if got.Header["Authorization"] != nil {
		t.Error("the upstream received the credential")
	}
	if n := number(t, g.metrics()[refused]) - before; n != 1 {
		t.Errorf("counted %v", n)
	}
}
