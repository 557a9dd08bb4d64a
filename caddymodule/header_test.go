package caddymodule_test

import (
	"maps"
	"strings"
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

// credentials returns what the upstream received where a key may stand.
func (r received) credentials() map[string]string {
	got := make(map[string]string)
	for name, values := range r.Header {
		switch name = strings.ToLower(name); name {
		case "authorization", "x-api-key", "x+api+key", "x-key":
			got[name] = strings.Join(values, " and ")
		}
	}
	for name, values := range r.Trailer {
		if len(values) > 0 { // the proxy announces those that the client has announced
			got["trailer "+name] = strings.Join(values, " and ")
		}
	}
	return got
}

func TestOfTwoPlacesForTheKeyOnlyTheOneThatHasItIsTouched(t *testing.T) {
	const basic = "Basic YTpi"
	g := start(t, ``, site)
	k, revoked := g.issue(reader), g.issueRevoked()
	type fields = map[string]string
	for _, row := range []struct {
		name, words string
		sent, want  fields
	}{
		{"the key in the header", "header X-API-Key", fields{"x-api-key": k.Token, "authorization": basic}, fields{"authorization": basic}},
		{"the key in Authorization", "header X-API-Key", fields{"authorization": "Bearer " + k.Token}, fields{}},
		{"one more in Authorization", "header X-API-Key", fields{"x-api-key": k.Token, "authorization": "Token " + k.Token}, fields{}},
		{"one more in X-Api-Key", "header X-Key", fields{"x-key": k.Token, "x-api-key": k.Token, "authorization": basic}, fields{"authorization": basic}},
		{"forwarded from the header", "header X-API-Key\nforward_credential", fields{"x-api-key": k.Token, "authorization": basic}, fields{"x-api-key": k.Token, "authorization": basic}},
		{"forwarded from Authorization", "header X-API-Key\nforward_credential", fields{"authorization": "Bearer " + k.Token}, fields{"authorization": "Bearer " + k.Token}},
		{"forwarded, and one more", "header X-Key\nforward_credential", fields{"x-key": k.Token, "x-api-key": k.Token}, fields{"x-key": k.Token}},
		{"forwarded, and one more in another spelling", "header X-API-Key\nforward_credential", fields{"x-api-key": k.Token, "x+api+key": k.Token}, fields{"x-api-key": k.Token}},
		{"observed", "header X-API-Key\nobserve", fields{"x-api-key": k.Token, "authorization": basic}, fields{"authorization": basic}},
		{"observed, revoked", "header X-API-Key\nobserve", fields{"x-api-key": revoked.Token}, fields{"x-api-key": revoked.Token}},
		{"observed, two", "header X-API-Key\nobserve", fields{"x-api-key": k.Token, "authorization": "Bearer " + k.Token}, fields{"x-api-key": k.Token, "authorization": "Bearer " + k.Token}},
		{"observed, revoked, elsewhere", "observe", fields{"x-api-key": revoked.Token, "authorization": basic}, fields{"authorization": basic}},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := *g
			g.TB = t
			if err := g.load(``, "api_keys {\n"+row.words+"\n}\nreverse_proxy UPSTREAM"); err != nil {
				t.Fatal(err)
			}
			var headers []string
			for name, value := range row.sent {
				headers = append(headers, name+": "+value)
			}
			if got := g.passed(g.send("GET", "/", "", headers...)).credentials(); !maps.Equal(got, row.want) {
				t.Errorf("the upstream received %v, want %v", got, row.want)
			}
			// A trailer is no place for a key.
			chunked := "OPTIONS / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTrailer: X-Api-Key\n" + strings.Join(headers, "\n") +
				"\n\n4\nbody\n0\nX-Api-Key: " + k.Token + "\n\n"
			if got := g.passed(g.raw(chunked)).credentials(); !maps.Equal(got, row.want) {
				t.Errorf("with a trailer the upstream received %v, want %v", got, row.want)
			}
		})
	}
}

func TestASecondGateTakesOutWhatTheFirstHasForwarded(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth {
				header X-API-Key
				forward_credential
			}
			api_key_auth
			reverse_proxy UPSTREAM
		}`)
	k := g.issue(reader)
	for header, want := range map[string]map[string]string{
		"X-Api-Key: " + k.Token: {"authorization": "Basic YTpi"},
		k.header():              {},
	} {
		headers := []string{header}
		if header != k.header() {
			headers = append(headers, "Authorization: Basic YTpi")
		}
		if got := g.passed(g.send("GET", "/", "", headers...)).credentials(); !maps.Equal(got, want) {
			t.Errorf("the upstream received %v, want %v", got, want)
		}
	}
}
