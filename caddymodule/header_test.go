package caddymodule_test

import (
	"testing"
)

const withHeader = `
	api_keys {
		header X-API-Key
	}
	reverse_proxy UPSTREAM
`

func TestTheKeyCanStandInTheConfiguredHeader(t *testing.T) {
	g := start(t, allowHTTP2, withHeader)
	k := g.issue(writer)
	for range 2 {
		for _, header := range []string{"X-Api-Key: " + k.Token, "x-api-key:  " + k.Token, "X-API-KEY: " + k.Token, k.header()} {
			got := g.passed(g.send("GET", "/", "", header, "X-User-Id: root", "x_api_key: "+k.Token))
			g.tells(got, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read-write")
			for _, name := range []string{"Authorization", "X-Api-Key", "X_api_key", "x_api_key"} {
				if got.Header[name] != nil {
					t.Errorf("%s: the upstream received %v", header, got.Header)
				}
			}
		}
		g.passed(g.send("GET", "/", "", "X-Api-Key: "+k.Token, "Authorization: Basic YTpi")) // no key of ours
		g.overHTTP2()
	}
}

func TestTheConfiguredHeaderIsReadAsStrictlyAsAuthorization(t *testing.T) {
	g := start(t, ``, withHeader)
	k, revoked := g.issue(writer), g.issueRevoked()
	invalid := `Bearer realm="api", error="invalid_request"`
	for _, row := range []struct {
		name      string
		headers   []string
		status    int
		reason    string
		challenge string
	}{
		{"both", []string{"X-Api-Key: " + k.Token, k.header()}, 400, "invalid_request", invalid},
		{"both, the other is bad", []string{"X-Api-Key: " + k.Token, "Authorization: Bearer x"}, 400, "invalid_request", invalid},
		{"two values", []string{"X-Api-Key: " + k.Token, "X-Api-Key: " + k.Token}, 400, "invalid_request", invalid},
		{"two spellings", []string{"X-Api-Key: " + k.Token, "x-api-key: " + k.Token}, 400, "invalid_request", invalid},
		{"empty", []string{"X-Api-Key: "}, 400, "invalid_request", invalid},
		{"two words", []string{"X-Api-Key: Bearer " + k.Token}, 400, "invalid_request", invalid},
		{"two joined", []string{"X-Api-Key: " + k.Token + ", " + k.Token}, 400, "invalid_request", invalid},
		{"unknown", []string{"X-Api-Key: x"}, 401, "invalid_token", invalidToken},
		{"revoked", []string{"X-Api-Key: " + revoked.Token}, 401, "invalid_token", invalidToken},
		{"an underscore", []string{"x_api_key: " + k.Token}, 401, "no_credential", plainBearer},
		{"none", nil, 401, "no_credential", plainBearer},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := *g
			g.TB = t
			for _, path := range []string{"/", "/v1/api-keys"} {
				g.refused(g.send("GET", path, "", row.headers...), row.status, row.reason, row.challenge)
			}
		})
	}
}

func TestManagementTakesTheConfiguredHeader(t *testing.T) {
	g := start(t, ``, withHeader)
	k := g.issue(writer)
	if a := g.send("POST", "/v1/api-keys", `{"name":"x"}`, "X-Api-Key: "+k.Token, asJSON); a.Status != 200 || a.text("createdBy") != "alice" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

func TestAHeaderThatIsNotConfiguredDecidesNothing(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	for _, path := range []string{"/", "/v1/api-keys"} {
		g.refused(g.send("GET", path, "", "X-Api-Key: "+k.Token), 401, "no_credential", plainBearer)
	}
	g.passed(g.send("GET", "/", "", k.header(), "X-Api-Key: x"))
}

func TestForwardCredentialLeavesTheKeyInTheConfiguredHeader(t *testing.T) {
	g := start(t, ``, `
		api_key_auth {
			header X-Key
			forward_credential
		}
		reverse_proxy UPSTREAM`)
	k := g.issue(reader)
	if got := g.passed(g.send("GET", "/", "", "X-Key: "+k.Token)); got.Header.Get("X-Key") != k.Token {
		t.Errorf("the upstream received %v", got.Header)
	}
}
