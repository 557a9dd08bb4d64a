package caddymodule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const insufficient = `Bearer realm="api", error="insufficient_scope"`

func TestReadMethodsAreThoseThatAreConfigured(t *testing.T) {
	g := start(t, ``, `
		api_key_auth {
			read_methods GET QUERY CONNECT
		}
		reverse_proxy UPSTREAM`)
	read, write := g.issue(reader), g.issue(writer)
	for method, good := range map[string]bool{"GET": true, "QUERY": true, "HEAD": false, "OPTIONS": false, "POST": false, "query": false} {
		if good {
			g.passed(g.send(method, "/", "", read.header()))
		} else if a := g.send(method, "/", "", read.header()); a.Status != 403 || len(g.upstream.take()) > 0 {
			t.Errorf("%s: %d %s", method, a.Status, a.Text)
		}
	}
	g.passed(g.send("POST", "/", "", write.header()))
	g.refused(g.raw("GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n"+read.header()+"\n\n"), 403, "insufficient_scope", insufficient)
	g.refused(g.raw("CONNECT x:1 HTTP/1.1\nHost: x:1\n"+read.header()+"\n\n"), 403, "insufficient_scope", insufficient)
}

func TestReadRoutesAreComparedExactly(t *testing.T) {
	g := start(t, ``, `
		api_key_auth {
			read_routes POST /search /graphql
			read_routes PUT /cache
		}
		reverse_proxy UPSTREAM`)
	k := g.issue(reader)
	for _, call := range []string{"POST /search", "POST /search?q=x", "POST /graphql", "PUT /cache", "GET /search", "GET /other"} {
		method, path, _ := strings.Cut(call, " ")
		if got := g.passed(g.send(method, path, "", k.header())); got.URI != path || got.Method != method {
			t.Errorf("%s reached the upstream as %s %s", call, got.Method, got.URI)
		}
	}
	for _, call := range []string{
		"POST /", "POST /search/", "POST /Search", "POST //search", "POST /search/x", "POST /./search", "POST /x/../search", "POST /%73earch", "POST /search%2F",
		"POST /search%2f..%2fadmin", "POST /search;x", "POST /search%00", "POST /cache", "PUT /search", "DELETE /search", "post /search", "PATCH /graphql",
	} {
		method, path, _ := strings.Cut(call, " ")
		a := g.raw(method + " " + path + " HTTP/1.1\nHost: x\nContent-Length: 0\n" + k.header() + "\n\n")
		if a.reason() != "insufficient_scope" || len(g.upstream.take()) > 0 {
			t.Errorf("%s: %d %s", call, a.Status, a.Text)
		}
	}
	g.refused(g.raw("POST /search HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n"+k.header()+"\n\n"), 403, "insufficient_scope", insufficient)
	g.refused(g.send("POST", "/search", ""), 401, "no_credential", plainBearer)
}

func TestRequireScopeRefusesReadKeysWhateverTheyDo(t *testing.T) {
	g := start(t, ``, `
		api_key_auth {
			require_scope read-write
			read_methods GET
			read_routes POST /search
		}
		reverse_proxy UPSTREAM`)
	read, write := g.issue(reader), g.issue(writer)
	g.refused(g.send("GET", "/", "", read.header()), 403, "insufficient_scope", insufficient)
	g.refused(g.send("POST", "/search", "", read.header()), 403, "insufficient_scope", insufficient)
	g.passed(g.send("GET", "/", "", write.header()))
	g.passed(g.send("DELETE", "/", "", write.header()))
}

func TestWordsOfTheGateThatCannotBeAreAnError(t *testing.T) {
	g := start(t, ``, site)
	for _, row := range [][3]string{
		{``, "api_key_auth {\nrequire_scope write\n}", `require_scope "write": use read or read-write`},
		{``, "api_key_auth {\nheader \"X Key\"\n}", `header "X Key": it is not the name of a header`},
		{``, "api_key_auth {\nheader authorization\n}", "the key is looked for there anyway"},
		{``, "api_key_management {\nheader Authorization\n}", "the key is looked for there anyway"},
		{``, "api_key_management {\nheader X:Key\n}", "it is not the name of a header"},
		{``, "api_key_management {\nidentity {\nuser alice\n}\n}", "name an organization, and a user or a service_account"},
		{``, "api_key_management {\nidentity {\norganization acme\n}\n}", "name an organization, and a user or a service_account"},
		{``, "api_key_management {\nidentity {\norganization acme\nuser a\nservice_account b\n}\n}", "name an organization, and a user or a service_account"},
		{``, "api_key_management {\nidentity {\norganization acme\nuser a\nscope all\n}\n}", `scope "all": use read or read-write`},
		{"api_keys {\nusage none\n}", site, `usage "none": use full, time or off`},
		{"api_keys {\nmanagement nobody\n}", site, `management "nobody": use keys or operator`},
		{"api_keys {\nmax_ttl 1d\ndefault_ttl 2d\n}", site, "is longer than the longest"},
		{"api_keys {\npepper short\n}", site, "a pepper has at least 16 bytes"},
	} {
		if err := g.load(row[0], row[1]); err == nil || !strings.Contains(err.Error(), row[2]) {
			t.Errorf("%s%s: %v, want %s", row[0], row[1], err, row[2])
		}
	}
	g.passed(g.send("GET", "/", "", g.issue(reader).header()))
}

const preflight = "Access-Control-Request-Method: DELETE"

func TestSkipPreflightLetsNothingElsePass(t *testing.T) {
	g := start(t, ``, `
		api_keys {
			skip_preflight
		}
		reverse_proxy UPSTREAM`)
	k := g.issue(reader)
	got := g.passed(g.send("OPTIONS", "/x", "", "Origin: https://example.com", preflight, "X-User-Id: root", "X_Api_Key_Id: x"))
	g.tells(got)
	// Browsers send no key with it; who does shows it to nobody.
	if got := g.passed(g.send("OPTIONS", "/x", "", "Origin: https://example.com", preflight, k.header())); got.Header["Authorization"] != nil {
		t.Error("the upstream received the credential")
	}
	for _, row := range [][]string{
		{"GET", "Origin: https://example.com", preflight},
		{"POST", "Origin: https://example.com", preflight},
		{"OPTIONS", "Origin: https://example.com"},
		{"OPTIONS", preflight},
		{"OPTIONS", "Origin: ", preflight},
		{"OPTIONS"},
	} {
		g.refused(g.send(row[0], "/x", "", row[1:]...), 401, "no_credential", plainBearer)
	}
	g.refused(g.raw("OPTIONS / HTTP/1.1\nHost: x\nOrigin: https://example.com\n"+preflight+"\nConnection: Upgrade\nUpgrade: websocket\n\n"), 401, "no_credential", plainBearer)
	// Management has no use for one.
	if a := g.send("OPTIONS", "/v1/api-keys", "", "Origin: https://example.com", preflight); a.Status == 200 || len(g.upstream.take()) > 0 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

func TestErrorRoutesCanAnswerForTheGate(t *testing.T) {
	g := start(t, ``, `
		api_key_auth {
			header X-API-Key
			errors handle
		}
		reverse_proxy UPSTREAM
		handle_errors {
			route {
				reverse_proxy /proxied UPSTREAM
				respond "{err.status_code} {http.auth.refused}"
			}
		}`)
	k := g.issue(reader)
	for _, row := range []struct {
		method, header, text, challenge string
	}{
		{"GET", "X-None: x", "401 no_credential", plainBearer},
		{"GET", k.header() + " x", "400 invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"GET", "Authorization: Bearer x", "401 invalid_token", invalidToken},
		{"POST", k.header(), "403 insufficient_scope", insufficient},
		{"POST", "X-Api-Key: " + k.Token, "403 insufficient_scope", insufficient},
	} {
		a := g.send(row.method, "/", "", row.header)
		if a.Text != row.text || !strings.HasPrefix(row.text, fmt.Sprint(a.Status)) || strings.Join(a.Header["Www-Authenticate"], ";") != row.challenge {
			t.Errorf("%s: %d %q %v", row.header, a.Status, a.Text, a.Header)
		}
		if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Vary") != "Authorization" {
			t.Errorf("%s: a cache may keep %v", row.header, a.Header)
		}
		if seen := g.upstream.take(); len(seen) > 0 {
			t.Errorf("%s: the upstream received %v", row.header, seen)
		}
		a = g.send(row.method, "/proxied", "", row.header, "X-User-Id: root", "x_api_key_scope: read-write")
		seen := g.upstream.take()
		if len(seen) != 1 || seen[0].Header["Authorization"] != nil || seen[0].Header["X-Api-Key"] != nil {
			t.Errorf("%s: %d, and the upstream received %v", row.header, a.Status, seen)
			continue
		}
		g.tells(seen[0])
		if !slices.Equal(a.Header["Www-Authenticate"], []string{row.challenge}) {
			t.Errorf("%s: %v", row.header, a.Header)
		}
	}
	g.passed(g.send("GET", "/", "", k.header()))
	restore := g.cut()
	if a := g.send("GET", "/", "", g.foreign(k)); a.Text != "503 store_unavailable" || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s %v", a.Status, a.Text, a.Header)
	}
	restore()
}

// foreign is a header with a token of a key that does not exist.
func (g *gateway) foreign(k key) string {
	return "Authorization: Bearer " + forge(swap(idOf(k.Token), 20), secretOf(k.Token))
}
