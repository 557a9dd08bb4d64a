package caddymodule_test

import (
	"maps"
	"strings"
	"testing"
	"time"
)

const asJSON = "Content-Type: application/json"

// create makes a key as the holder of another one.
func (g *gateway) create(by key, body string) answer {
	g.Helper()
	return g.send("POST", "/v1/api-keys", body, by.header(), asJSON)
}

// keys returns how many keys were ever issued.
func (g *gateway) keys() string {
	g.Helper()
	return g.metrics()[`caddy_api_keys_keys{state="issued"}`]
}

func TestKeyHoldersGetTheContract(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	a := g.create(k, `{"name":"first","description":"of many","scope":"read-write","expiresAt":"`+end+`"}`)
	if a.Status != 200 || a.Code != 200 || a.Message != "success" || a.RequestID == "" || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", a.Status, a.Header, a.Text)
	}
	made := key{a.text("id"), a.text("key")}
	if !strings.HasPrefix(made.Token, a.text("keyPrefix")) || made.ID != "key_"+idOf(made.Token) {
		t.Errorf("%s", a.Text)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.999Z", a.text("createdAt")); err != nil {
		t.Error(err)
	}
	want := map[string]any{
		"id": made.ID, "key": made.Token, "keyPrefix": "ak_" + idOf(made.Token), "name": "first", "description": "of many", "scope": "read-write",
		"organizationId": "acme", "userId": "alice", "createdBy": "alice", "createdAt": a.text("createdAt"), "expiresAt": end,
	}
	if !maps.Equal(a.Data, want) {
		t.Errorf("got %v\nwant %v", a.Data, want)
	}
	g.passed(g.send("PUT", "/", "", made.header()))

	delete(want, "key")
	get := g.send("GET", "/v1/api-keys/"+made.ID, "", k.header())
	for _, field := range []string{"lastUsedAt", "lastUsedIp", "lastUsedUserAgent"} {
		if get.text(field) == "" {
			t.Errorf("%s is missing in %s", field, get.Text)
		}
		delete(get.Data, field)
	}
	if !maps.Equal(get.Data, want) {
		t.Errorf("got %v\nwant %v", get.Data, want)
	}
	list := g.send("GET", "/v1/api-keys", "", k.header())
	if items, _ := list.Data["items"].([]any); list.Status != 200 || len(items) != 2 || strings.Contains(list.Text, secretOf(made.Token)) {
		t.Errorf("%d %s", list.Status, list.Text)
	}
	revoked := g.send("DELETE", "/v1/api-keys/"+made.ID, "", k.header())
	if revoked.Status != 200 || revoked.text("revokedAt") == "" {
		t.Errorf("%d %s", revoked.Status, revoked.Text)
	}
	g.refused(g.send("GET", "/", "", made.header()), 401, "invalid_token", invalidToken)
	if again := g.send("DELETE", "/v1/api-keys/"+made.ID, "", k.header()); again.text("revokedAt") != revoked.text("revokedAt") {
		t.Errorf("revoked again: %d %s", again.Status, again.Text)
	}
	if seen := g.upstream.take(); len(seen) > 0 {
		t.Errorf("the upstream received %v", seen)
	}
}

// The headers are those that the callers in the contract send.
func TestCallersOfTheContractAreUnderstood(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	for caller, headers := range map[string][]string{
		"curl":            {"User-Agent: curl/8.5.0", "Accept: */*"},
		"fetch":           {"User-Agent: node", "Accept: */*", "Accept-Language: *", "Sec-Fetch-Mode: cors", "Accept-Encoding: gzip, deflate"},
		"Python requests": {"User-Agent: python-requests/2.32.3", "Accept-Encoding: gzip, deflate", "Accept: */*", "Connection: keep-alive"},
		"net/http":        {"User-Agent: Go-http-client/1.1", "Accept-Encoding: gzip"},
		"the playground":  {"Origin: http://" + g.site, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Accept: application/json"},
		"a page":          {"Accept: text/html", "Sec-Fetch-Site: same-site"},
	} {
		t.Run(caller, func(t *testing.T) {
			g := *g
			g.TB = t
			headers := append(headers, k.header(), asJSON)
			a := g.send("POST", "/v1/api-keys", `{}`, headers...)
			g.refused(answer{Status: a.Status, Header: a.Header, Text: a.Text, Code: a.Code, Message: a.Message, RequestID: a.RequestID,
				Data: map[string]any{"reason": a.Data["reason"]}}, 400, "missing_field", noChallenge)
			if a.text("field") != "name" {
				t.Errorf("%s", a.Text)
			}
			a = g.send("POST", "/v1/api-keys", `{"name":"x"}`, headers...)
			if a.Status != 200 || a.text("name") != "x" || a.text("scope") != "read" || a.text("userId") != "alice" || a.text("key") == "" {
				t.Errorf("%d %s", a.Status, a.Text)
			}
		})
	}
}

func TestAnOrganizationAtItsLimitGetsKeysAgainWhenItRevokesSome(t *testing.T) {
	g := start(t, "api_keys {\nmax_keys_per_organization 3\n}", site)
	k := g.issue(writer)
	for range 2 {
		if a := g.create(k, `{"name":"x","serviceAccountId":"ci"}`); a.Status != 200 {
			t.Fatal(a.Text)
		}
	}
	g.refused(g.create(k, `{"name":"x"}`), 403, "key_limit", noChallenge)
	a := g.send("POST", "/v1/api-keys/revoke", `{"serviceAccountId":"ci"}`, k.header(), asJSON)
	if a.Status != 200 || a.Data["revoked"] != 2. {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if a := g.create(k, `{"name":"x"}`); a.Status != 200 {
		t.Error(a.Text)
	}
}

func TestManagementRefusesWhoHasNoRight(t *testing.T) {
	g := start(t, ``, site)
	read, write := g.issue(reader), g.issue(writer)
	insufficient := `Bearer realm="api", error="insufficient_scope"`
	issued := g.keys()
	for _, path := range []string{"/v1/api-keys", "/v1/api-keys/" + write.ID, "/v1/api-keys/nothing", "/v1/api-keys/", "/v1/api-keys/a/b"} {
		for _, method := range []string{"GET", "POST", "DELETE", "PATCH", "OPTIONS"} {
			g.refused(g.send(method, path, `{"name":"x"}`, asJSON), 401, "no_credential", plainBearer)
			g.refused(g.send(method, path, `{"name":"x"}`, asJSON, "Authorization: Bearer "+swap(write.Token, 40)), 401, "invalid_token", invalidToken)
			g.refused(g.send(method, path, `{"name":"x"}`, asJSON, write.header(), read.header()), 400, "invalid_request", `Bearer realm="api", error="invalid_request"`)
		}
	}
	g.refused(g.send("POST", "/v1/api-keys", `{"name":"x"}`, read.header(), asJSON), 403, "insufficient_scope", insufficient)
	g.refused(g.send("GET", "/v1/api-keys", ``, read.header()), 403, "insufficient_scope", insufficient)
	g.refused(g.send("GET", "/v1/api-keys/"+write.ID, ``, read.header()), 403, "insufficient_scope", insufficient)
	g.refused(g.send("DELETE", "/v1/api-keys/"+write.ID, ``, read.header()), 403, "insufficient_scope", insufficient)
	g.refused(g.send("DELETE", "/v1/api-keys/"+read.ID, ``, read.header()), 403, "insufficient_scope", insufficient)
	if self := g.send("GET", "/v1/api-keys/"+read.ID, ``, read.header()); self.Status != 200 || self.text("id") != read.ID {
		t.Errorf("a read key looks at itself: %d %s", self.Status, self.Text)
	}
	if a := g.send("PUT", "/v1/api-keys", ``, write.header()); a.Status != 405 || a.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("PUT: %d %v", a.Status, a.Header)
	}
	if now := g.keys(); now != issued {
		t.Errorf("%s keys before, %s after", issued, now)
	}
	g.passed(g.send("GET", "/", "", read.header()))
}

func TestOtherOrganizationsKeysDoNotExist(t *testing.T) {
	g := start(t, ``, site)
	mine, theirs := g.issueFor("acme", writer), g.issueFor("globex", writer)
	for _, method := range []string{"GET", "DELETE"} {
		foreign := g.send(method, "/v1/api-keys/"+theirs.ID, "", mine.header(), "X-Organization-Id: globex")
		unknown := g.send(method, "/v1/api-keys/key_"+swap(idOf(theirs.Token), 21), "", mine.header())
		g.refused(foreign, 404, "not_found", noChallenge)
		if strings.ReplaceAll(foreign.Text, foreign.RequestID, "") != strings.ReplaceAll(unknown.Text, unknown.RequestID, "") {
			t.Errorf("a foreign id gets %s, an unknown one %s", foreign.Text, unknown.Text)
		}
	}
	for _, body := range []string{`{"name":"x","organizationId":"globex"}`, `{"name":"x","userId":"bob"}`} {
		if a := g.create(mine, body); a.Status != 400 || a.reason() != "unknown_field" {
			t.Errorf("%s: %d %s", body, a.Status, a.Text)
		}
	}
	if a := g.send("GET", "/v1/api-keys?organization=globex", "", mine.header()); a.Status != 400 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if a := g.send("GET", "/v1/api-keys", "", mine.header(), "X-Organization-Id: globex"); strings.Contains(a.Text, theirs.ID) {
		t.Errorf("the list shows a foreign key: %s", a.Text)
	}
	g.passed(g.send("GET", "/", "", theirs.header()))
}

// A path trick may end at management or at the upstream, but never without a
// key, and never where a read key could write.
func TestPathTricksLeadNowhereWithoutAKey(t *testing.T) {
	g := start(t, ``, site)
	read, write := g.issue(reader), g.issue(writer)
	paths := []string{
		"//v1/api-keys", "/v1//api-keys", "/./v1/api-keys", "/v1/./api-keys", "/x/../v1/api-keys", "/v1/api-keys/..", "/v1/api-keys/../x",
		"/v1/api-keys/", "/v1/api-keys//", "/v1/api-keys/./", "/v1/api-keys//" + write.ID,
		"/v1%2fapi-keys", "/v1%2Fapi-keys", "/%76%31/api-keys", "/v1/api%2Dkeys", "/v1%252fapi-keys", "/v1/api-keys%2f" + write.ID, "/v1/api-keys/%6bey",
		"/v1/api-keys;a=b", "/v1;x/api-keys", "/v1/api-keys/;", "/v1/..;/v1/api-keys",
		`/v1\api-keys`, "/v1%5capi-keys", "/v1/%2e%2e/v1/api-keys", "/v1/%2e/api-keys",
		"/v1/api-key%C5%BF", "/v1/api-key\u017f", "/V1/API-KEYS", "/v1/api-Keys", "/v1／api-keys", "/v1/apı-keys",
		"/v1/api-keys%23x", "/v1/api-keys%3fx", "/v1/api-keys%00", "/v1/api-keys%20", "/v1/api-keys.", "/v1/api-keysx", "/v1/api-keys.json",
		"/public?x=/v1/api-keys", "/v1/api-keys?x=;y", "/?/v1/api-keys", "/v1/api-keys?" + strings.Repeat("a=b&", 1000),
		"//evil.example/%2e%2e", "///", "/v1/api-keys/a/b", "*", "http://other.example/v1/api-keys", "http://other.example/x",
	}
	issued := g.keys()
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			g := *g
			g.TB = t
			for _, method := range []string{"GET", "POST", "DELETE"} {
				for name, k := range map[string]key{"nobody": {}, "a read key": read, "a read-write key": write} {
					lines := method + " " + path + " HTTP/1.1\nHost: x\nX-User-Id: root\n" + asJSON + "\nContent-Length: 2\n"
					if k.Token != "" {
						lines += k.header() + "\n"
					}
					a := g.raw(lines + "\n{}")
					seen := g.upstream.take()
					// The body has no name, so that nothing is created with 200.
					switch {
					case a.Status/100 == 3:
						t.Errorf("%s %s: redirected to %s", name, method, a.Header.Get("Location"))
					case k.Token == "" && (a.Status != 401 && a.Status != 400 || len(seen) > 0):
						t.Errorf("%s %s: %d, and the upstream received %v", name, method, a.Status, seen)
					case k == read && method != "GET" && (a.Status < 400 || len(seen) > 0):
						t.Errorf("%s %s: %d, and the upstream received %v", name, method, a.Status, seen)
					case a.Status >= 500:
						t.Errorf("%s %s: %d", name, method, a.Status)
					}
					for _, r := range seen {
						if r.Header.Get("X-User-Id") != "alice" || r.Header.Get("Authorization") != "" {
							t.Errorf("%s %s: the upstream received %v", name, method, r)
						}
					}
				}
			}
		})
	}
	if now := g.keys(); now != issued {
		t.Errorf("%s keys before, %s after", issued, now)
	}
	for _, k := range []key{read, write} {
		g.passed(g.send("GET", "/", "", k.header()))
	}
}

func TestManagementTakesNoOtherSpellingOfItsPath(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	for _, path := range []string{"//v1/api-keys", "/v1%2Fapi-keys", "/v1/api%2Dkeys", "/V1/api-keys", "/v1/api-keysx", "/v1/api-keys%2F" + k.ID, "/v1/./api-keys"} {
		if r := g.passed(g.raw("GET " + path + " HTTP/1.1\nHost: x\n" + k.header() + "\n\n")); r.URI != path {
			t.Errorf("%s arrived as %s", path, r.URI)
		}
	}
	for _, path := range []string{"/v1/api-keys/", "/v1/api-keys//", "/v1/api-keys/a/b", "/v1/api-keys/" + k.ID + "/"} {
		g.refused(g.send("GET", path, "", k.header()), 404, "not_found", noChallenge)
	}
	for _, host := range []string{"x", "X", "x.", "x:80", "[::1]", "other.example"} {
		if a := g.raw("GET /v1/api-keys HTTP/1.1\nHost: " + host + "\nX-Forwarded-Host: y\n" + k.header() + "\n\n"); a.Status != 200 {
			t.Errorf("Host %s: %d %s", host, a.Status, a.Text)
		}
	}
}

func TestTheDescriptionOfTheAPINeedsNoCredentialAndNamesItsPath(t *testing.T) {
	g := start(t, ``, `
		handle /other/* {
			api_keys {
				path /other/keys
			}
			reverse_proxy UPSTREAM
		}
		handle {
			api_keys
			reverse_proxy UPSTREAM
		}`)
	k := g.issue(writer)
	for _, path := range []string{"/v1/api-keys", "/other/keys"} {
		for _, headers := range [][]string{nil, {k.header()}, {"Authorization: Bearer nobody"}} {
			a := g.send("GET", path+"/openapi.yaml", "", headers...)
			if a.Status != 200 || a.Header.Get("Content-Type") != "application/yaml" || !strings.Contains(a.Text, `"`+path+`/{id}/rotate":`) {
				t.Errorf("%s: %d %.100s", path, a.Status, a.Text)
			}
		}
		g.refused(g.send("POST", path+"/openapi.yaml", ""), 405, "method_not_allowed", noChallenge)
		for _, other := range []string{"/openapi.yaml/", "/openapi%2Eyaml", "/openapi.json", "//openapi.yaml"} {
			g.refused(g.send("GET", path+other, ""), 401, "no_credential", plainBearer)
		}
	}
	if seen := g.upstream.take(); len(seen) > 0 {
		t.Errorf("the upstream received %v", seen)
	}
}

func TestManagementStandsWhereItIsPut(t *testing.T) {
	g := start(t, ``, `
		handle_path /nested/* {
			api_keys
			reverse_proxy UPSTREAM
		}
		handle /other/* {
			api_keys {
				path /other/keys
			}
			reverse_proxy UPSTREAM
		}
		handle /gated/* {
			route {
				api_key_auth
				api_key_management {
					path /gated/keys
				}
				reverse_proxy UPSTREAM
			}
		}
		handle {
			api_key_management
			reverse_proxy UPSTREAM
		}`)
	read, write := g.issue(reader), g.issue(writer)
	for _, path := range []string{"/nested/v1/api-keys", "/other/keys", "/gated/keys", "/v1/api-keys"} {
		if a := g.send("GET", path, "", write.header()); a.Status != 200 || !strings.Contains(a.Text, read.ID) {
			t.Errorf("%s: %d %s", path, a.Status, a.Text)
		}
		if a := g.send("GET", path+"/"+read.ID, "", read.header()); a.Status != 200 || a.text("id") != read.ID {
			t.Errorf("%s/{id}: %d %s", path, a.Status, a.Text)
		}
		if a := g.send("POST", path, `{"name":"x"}`, write.header(), asJSON); a.Status != 200 || a.text("createdBy") != "alice" {
			t.Errorf("%s: %d %s", path, a.Status, a.Text)
		}
		g.refused(g.send("POST", path, `{"name":"x"}`, read.header(), asJSON), 403, "insufficient_scope", `Bearer realm="api", error="insufficient_scope"`)
		g.refused(g.send("GET", path, ""), 401, "no_credential", plainBearer)
	}
	for _, path := range []string{"/nested/x", "/other/x", "/other/v1/api-keys", "/gated/x"} {
		g.passed(g.send("GET", path, "", read.header()))
		g.refused(g.send("GET", path, ""), 401, "no_credential", plainBearer)
	}
	g.passed(g.send("GET", "/x", "")) // management alone hands on the rest
}

func TestPathsThatManagementCannotHaveAreAnError(t *testing.T) {
	g := start(t, ``, site)
	for _, path := range []string{"/", "v1/api-keys", "/v1/api-keys/", "/v1//api-keys", "/v1/../api-keys", "*"} {
		if err := g.load(``, "api_keys {\npath "+path+"\n}"); err == nil || !strings.Contains(err.Error(), "give an absolute path such as /v1/api-keys") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
