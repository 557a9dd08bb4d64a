package caddymodule_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const (
	trustTheTest = `
	servers {
		trusted_proxies static 127.0.0.1/32
		protocols h1 h2c
	}
`
	asking = `
	api_key_auth {
		subrequest
		organization acme
		read_routes POST /search
		WORDS
	}
	reverse_proxy UPSTREAM
`
)

// startAsked runs a gate that answers subrequests of the test.
func startAsked(t *testing.T, words string) *gateway {
	t.Helper()
	return start(t, trustTheTest, strings.Replace(asking, "WORDS", words, 1))
}

// ask asks whether a request may pass.
func (g *gateway) ask(method, uri string, headers ...string) answer {
	g.Helper()
	return g.send("GET", "/", "", append(headers, "X-Forwarded-Method: "+method, "X-Forwarded-Uri: "+uri)...)
}

var noIdentity = map[string]string{"X-Api-Key-Id": "", "X-Organization-Id": "", "X-User-Id": "", "X-Service-Account-Id": "", "X-Api-Key-Scope": ""}

// mayPass checks the answer to a subrequest that lets the request pass, which has
// every identity header once.
func (g *gateway) mayPass(a answer, identity map[string]string) {
	g.Helper()
	want := maps.Clone(noIdentity)
	maps.Copy(want, identity)
	if a.Status != 204 || a.Text != "" || a.Header.Get("Cache-Control") != "no-store" {
		g.Errorf("got %d %v %q", a.Status, a.Header, a.Text)
	}
	for name, value := range want {
		if got := a.Header[name]; len(got) != 1 || got[0] != value {
			g.Errorf("%s is %q, want one %q", name, got, value)
		}
	}
	g.reachedNobody()
}

// mustNotPass checks the answer to a subrequest that refuses the request.
func (g *gateway) mustNotPass(a answer, status int, challenge string) {
	g.Helper()
	if a.Status != status || a.Text != "" || a.Header.Get("Cache-Control") != "no-store" ||
		a.Header.Get("Www-Authenticate") != challenge || (a.Header.Get("Retry-After") != "") != (status == 503) {
		g.Errorf("got %d %v %q, want %d %s", a.Status, a.Header, a.Text, status, challenge)
	}
	for name := range noIdentity {
		if a.Header[name] != nil {
			g.Errorf("a refusal has %s: %q", name, a.Header[name])
		}
	}
	g.reachedNobody()
}

func (g *gateway) reachedNobody() {
	g.Helper()
	if seen := g.upstream.take(); len(seen) > 0 {
		g.Errorf("the upstream received %v", seen)
	}
}

func TestSubrequestsAreJudgedByTheForwardedMethodAndURI(t *testing.T) {
	g := startAsked(t, "")
	read, write := g.issue(reader), g.issue(writer)
	const insufficient, invalidRequest = `Bearer realm="api", error="insufficient_scope"`, `Bearer realm="api", error="invalid_request"`
	for _, row := range []struct {
		name, method, uri string
		headers           []string
		status            int
		challenge         string
	}{
		{"read", "GET", "/things?x=1", []string{read.header()}, 204, ""},
		{"HEAD", "HEAD", "/things", []string{read.header()}, 204, ""},
		{"write with a read-write key", "DELETE", "/things", []string{write.header()}, 204, ""},
		{"write with a read key", "DELETE", "/things", []string{read.header()}, 403, insufficient},
		{"method in lower case", "get", "/things", []string{read.header()}, 403, insufficient},
		{"odd method", "M-SEARCH*!", "/things", []string{read.header()}, 403, insufficient},
		{"CONNECT", "CONNECT", "/", []string{read.header()}, 403, insufficient},
		{"upgrade", "GET", "/", []string{read.header(), "Upgrade: websocket"}, 403, insufficient},
		{"upgrade to nothing", "GET", "/", []string{read.header(), "Upgrade: "}, 403, insufficient},
		{"upgrade with a read-write key", "GET", "/", []string{write.header(), "Upgrade: websocket"}, 204, ""},
		{"method override", "POST", "/things", []string{read.header(), "X-HTTP-Method-Override: GET"}, 403, insufficient},

		{"read route", "POST", "/search", []string{read.header()}, 204, ""},
		{"read route with a query", "POST", "/search?q=%zz; x", []string{read.header()}, 204, ""},
		{"read route as an absolute URI", "POST", "https://example.com/search?q=x", []string{read.header()}, 204, ""},
		{"read route of another method", "PUT", "/search", []string{read.header()}, 403, insufficient},
		{"read route with more behind it", "POST", "/search/", []string{read.header()}, 403, insufficient},
		{"read route in other bytes", "POST", "/%73earch", []string{read.header()}, 403, insufficient},
		{"read route reached by dots", "POST", "/x/../search", []string{read.header()}, 403, insufficient},
		{"read route with two slashes", "POST", "//search", []string{read.header()}, 403, insufficient},
		{"read route as a host", "POST", "//example.com/search", []string{read.header()}, 403, insufficient},
		{"read route in the query", "POST", "/?/search", []string{read.header()}, 403, insufficient},
		{"read route as a fragment", "POST", "/x#/search", []string{read.header()}, 403, insufficient},
		{"read route first in a list", "POST", "/search,/things", []string{read.header()}, 403, insufficient},
		{"absolute URI without a path", "POST", "http://example.com", []string{read.header()}, 403, insufficient},
		{"star", "OPTIONS", "*", []string{read.header()}, 204, ""},
		{"raw bytes", "GET", "/\u00fc", []string{read.header()}, 204, ""},

		{"no key", "GET", "/", nil, 401, plainBearer},
		{"preflight", "OPTIONS", "/", []string{"Origin: https://example.com", "Access-Control-Request-Method: PUT"}, 401, plainBearer},
		{"unknown key", "GET", "/", []string{"Authorization: Bearer " + forge(swap(idOf(read.Token), 20), secretOf(read.Token))}, 401, invalidToken},
		{"expired key", "GET", "/", []string{issuedExpired(g).header()}, 401, invalidToken},
		{"two keys", "GET", "/", []string{read.header(), write.header()}, 401, invalidRequest},
		{"empty key", "GET", "/", []string{"Authorization: Bearer"}, 401, invalidRequest},
		{"key of another organization", "GET", "/", []string{g.issueFor("globex", writer).header()}, 403, noChallenge},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := *g
			g.TB = t
			a := g.ask(row.method, row.uri, row.headers...)
			if row.status != 204 {
				g.mustNotPass(a, row.status, row.challenge)
				return
			}
			k, scope := read, "read"
			if row.headers[0] == write.header() {
				k, scope = write, "read-write"
			}
			g.mayPass(a, map[string]string{"X-Api-Key-Id": k.ID, "X-Organization-Id": "acme", "X-User-Id": "alice", "X-Api-Key-Scope": scope})
		})
	}
}

// issuedExpired is an expired key of a gate that answers subrequests.
func issuedExpired(g *gateway) key {
	g.Helper()
	k := g.issue(fmt.Sprintf(`%s,"expiresAt":%q`, reader, time.Now().Add(50*time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z")))
	g.await("the key to expire", func() bool { return g.ask("GET", "/", k.header()).Status == 401 })
	return k
}

func TestMethodAndURIOfTheSubrequestItselfDoNotMatter(t *testing.T) {
	g := startAsked(t, "")
	k := g.issue(reader)
	forwarded := []string{k.header(), "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "QUERY"} {
		for _, path := range []string{"/", "/v1/api-keys", "/x?y"} {
			if a := g.send(method, path, "", forwarded...); a.Status != 204 || a.Text != "" {
				t.Errorf("%s %s: %d %s", method, path, a.Status, a.Text)
			}
			g.reachedNobody()
		}
	}
	g.mustNotPass(g.send("POST", "/search", "", k.header(), "X-Forwarded-Method: POST", "X-Forwarded-Uri: /things"), 403, `Bearer realm="api", error="insufficient_scope"`)
}

// What the proxy must tell and does not is never guessed.
func TestSubrequestsThatCannotBeJudgedAreNeverLetPass(t *testing.T) {
	g := startAsked(t, "")
	write := g.issue(writer)
	const method, uri = "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"
	for _, row := range []struct {
		name    string
		headers []string
		names   string
	}{
		{"nothing forwarded", nil, "X-Forwarded-Method"},
		{"no method", []string{uri}, "X-Forwarded-Method"},
		{"no URI", []string{method}, "X-Forwarded-Uri"},
		{"empty method", []string{"X-Forwarded-Method: ", uri}, "X-Forwarded-Method"},
		{"empty URI", []string{method, "X-Forwarded-Uri: "}, "X-Forwarded-Uri"},
		{"two methods", []string{method, "X-Forwarded-Method: POST", uri}, "X-Forwarded-Method"},
		{"the same method twice", []string{method, method, uri}, "X-Forwarded-Method"},
		{"two URIs", []string{method, uri, "X-Forwarded-Uri: /search"}, "X-Forwarded-Uri"},
		{"list of methods", []string{"X-Forwarded-Method: GET, POST", uri}, "X-Forwarded-Method"},
		{"list of methods without a space", []string{"X-Forwarded-Method: GET,POST", uri}, "X-Forwarded-Method"},
		{"list of URIs", []string{method, "X-Forwarded-Uri: /search, /things"}, "X-Forwarded-Uri"},
		{"method that is none", []string{"X-Forwarded-Method: G\u00cbT", uri}, "X-Forwarded-Method"},
		{"relative URI", []string{method, "X-Forwarded-Uri: search"}, "X-Forwarded-Uri"},
		{"URI with a bad escape", []string{method, "X-Forwarded-Uri: /%zz"}, "X-Forwarded-Uri"},
		{"other names", []string{"X-Original-Method: GET", "X-Original-Uri: /"}, "X-Forwarded-Method"},
		{"names with underscores", []string{"X_Forwarded_Method: GET", "X_Forwarded_Uri: /"}, "X-Forwarded-Method"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := *g
			g.TB = t
			g.mustNotPass(g.send("GET", "/", "", append(row.headers, write.header())...), 503, noChallenge)
			g.mustNotPass(g.send("GET", "/", "", row.headers...), 503, noChallenge)
			g.await("the log to say why", func() bool {
				g.send("GET", "/", "", row.headers...)
				for _, line := range g.logged() {
					if text, _ := line["error"].(string); line["msg"] == "a subrequest cannot be judged" && line["level"] == "error" &&
						line["remote_ip"] == "127.0.0.1" && strings.Contains(text, row.names) {
						return true
					}
				}
				return false
			})
		})
	}
	if g.lookUp(write).text("lastUsedAt") != "" {
		t.Error("a subrequest that was not judged is a use of the key")
	}
	if number(t, g.metrics()[`caddy_api_keys_verdicts_total{outcome="unavailable",reason="store_unavailable"}`]) < 32 {
		t.Error("the metrics do not show it")
	}
}

func TestSubrequestsFromElsewhereThanATrustedProxyAreNeverBelieved(t *testing.T) {
	site := strings.Replace(asking, "WORDS", "", 1)
	g := start(t, ``, site)
	read, write := g.issue(reader), g.issue(writer)
	for _, global := range []string{``, `servers {
		trusted_proxies static 192.0.2.0/24
	}`} {
		if err := g.load(global, site); err != nil {
			t.Fatal(err)
		}
		for name, a := range map[string]answer{
			"good key":                    g.ask("GET", "/", write.header()),
			"forged method":               g.ask("GET", "/", read.header()),
			"forged client":               g.ask("GET", "/", read.header(), "X-Forwarded-For: 192.0.2.1"),
			"no key":                      g.ask("GET", "/"),
			"unknown key":                 g.ask("GET", "/", "Authorization: Bearer "+swap(write.Token, 70)),
			"good key, nothing forwarded": g.send("GET", "/", "", write.header()),
		} {
			t.Run(name, func(t *testing.T) {
				g := *g
				g.TB = t
				g.mustNotPass(a, 503, noChallenge)
			})
		}
		line := g.awaitLog(func(line map[string]any) bool { return line["msg"] == "a subrequest cannot be judged" })
		if text, _ := line["error"].(string); !strings.Contains(text, "trusted_proxies") || line["remote_ip"] != "127.0.0.1" {
			t.Errorf("logged %v", line)
		}
	}
	if uses(t, read)+uses(t, write) != 0 {
		t.Error("they are uses of the keys")
	}
}

func TestUsesThroughAnotherProxyAreThoseOfItsClient(t *testing.T) {
	g := startAsked(t, "")
	k := g.issue(`"serviceAccountId":"ci"`)
	g.mayPass(g.ask("GET", "/", k.header(), "X-Forwarded-For: 203.0.113.9", "User-Agent: their client"),
		map[string]string{"X-Api-Key-Id": k.ID, "X-Organization-Id": "acme", "X-Service-Account-Id": "ci", "X-Api-Key-Scope": "read"})
	used := g.lookUp(k)
	if used.text("lastUsedIp") != "203.0.113.9" || used.text("lastUsedUserAgent") != "their client" {
		t.Errorf("the use is recorded as %v", used.Data)
	}
	g.revoke(k)
	g.mustNotPass(g.ask("GET", "/", k.header()), 401, invalidToken)
}

func TestWithoutItsStoreASubrequestIsNotLetPass(t *testing.T) {
	g := startAsked(t, "")
	k := g.issue(reader)
	restore := g.cut()
	g.mustNotPass(g.ask("GET", "/", k.header()), 503, noChallenge)
	restore()
}

func TestSubrequestsAreAllLetPassWhileTheGateObserves(t *testing.T) {
	g := startAsked(t, "observe\nidentity_header user_id Remote-User")
	read := g.issue(reader)
	who := map[string]string{"X-Api-Key-Id": read.ID, "X-Organization-Id": "acme", "X-Api-Key-Scope": "read", "X-User-Id": "", "Remote-User": "alice"}
	forged := "Remote-User: root"
	ask := func(method string, headers ...string) answer {
		a := g.ask(method, "/observed", append(headers, forged)...)
		if a.Header["X-User-Id"] == nil { // it is renamed
			a.Header["X-User-Id"] = []string{""}
		}
		return a
	}
	g.mayPass(ask("GET", read.header()), who)
	nobody := map[string]string{"Remote-User": ""}
	g.mayPass(ask("POST", read.header()), nobody)
	line := g.awaitLog(func(line map[string]any) bool { return line["msg"] == "would refuse" })
	if line["method"] != "POST" || line["path"] != "/observed" || line["reason"] != "insufficient_scope" || line["api_key_id"] != read.ID {
		t.Errorf("logged %v", line)
	}
	g.mayPass(ask("GET"), nobody)
	g.mayPass(ask("GET", "Authorization: Bearer x"), nobody)
	const unavailable = `caddy_api_keys_observed_refusals_total{outcome="unavailable",reason="store_unavailable"}`
	before := number(t, g.metrics()[unavailable])
	g.mayPass(ask("GET", read.header(), "X-Forwarded-Method: POST"), nobody)
	if after := number(t, g.metrics()[unavailable]); after != before+1 {
		t.Errorf("%v subrequests would not have been judged, then %v", before, after)
	}
}

func TestPreflightsPassASubrequestOnlyIfTheyMay(t *testing.T) {
	g := startAsked(t, "skip_preflight")
	preflight := []string{"Origin: https://example.com", "Access-Control-Request-Method: PUT"}
	g.mayPass(g.ask("OPTIONS", "/", preflight...), nil)
	g.mustNotPass(g.ask("GET", "/", preflight...), 401, plainBearer)
	g.mustNotPass(g.send("OPTIONS", "/", "", append(preflight, "X-Forwarded-Method: DELETE", "X-Forwarded-Uri: /")...), 401, plainBearer)
	g.mustNotPass(g.ask("OPTIONS", "/", append(preflight, "Upgrade: websocket")...), 401, plainBearer)
}

func TestSubrequestIsNotCombinedWithWhatItCannotDo(t *testing.T) {
	g := startAsked(t, "")
	for _, words := range []string{"errors handle", "forward_credential", "cancel_after 1s", "cancel_after off"} {
		config, err := g.config(trustTheTest, strings.Replace(asking, "WORDS", words, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := caddy.Load(config, true); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(strings.TrimSuffix(words, " off"), " 1s")+" cannot be combined with subrequest") {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// The trusted address is the one of the connection, over every protocol.
func TestSubrequestsOverHTTP2(t *testing.T) {
	g := startAsked(t, "")
	k := g.issue(reader)
	g.overHTTP2()
	g.mayPass(g.ask("GET", "/", k.header()), map[string]string{"X-Api-Key-Id": k.ID, "X-Organization-Id": "acme", "X-User-Id": "alice", "X-Api-Key-Scope": "read"})
	g.mustNotPass(g.ask("POST", "/", k.header()), 403, `Bearer realm="api", error="insufficient_scope"`)
	g.mustNotPass(g.ask("GET", "/ /", k.header()), 503, noChallenge)
	if a := g.send("GET", "/", "", k.header()); a.Status != http.StatusServiceUnavailable {
		t.Errorf("%d", a.Status)
	}
}

// Caddy answers 200 to what nothing matches, and no handler of ours can change that.
func TestASiteThatIsNotAskedAboutEveryRequestIsWarnedOf(t *testing.T) {
	const gate = "{\nsubrequest\n}\n"
	g := start(t, trustTheTest, "api_key_auth "+gate)
	warned := func() (n int) {
		for _, line := range g.logged() {
			if text, _ := line["msg"].(string); line["level"] == "warn" && strings.HasPrefix(text, "a site with subrequest does not match every request") {
				n++
			}
		}
		return n
	}
	for _, row := range []struct {
		name, site string
		warns      int
	}{
		{"the gate alone", "api_key_auth " + gate, 0},
		{"one for each request", "api_key_auth /upgrades " + gate + "api_key_auth " + gate, 0},
		{"in a route", "route {\nvars x y\napi_key_auth " + gate + "}", 0},
		{"no subrequests", "api_key_auth /x\n", 0},
		{"a path", "api_key_auth /x " + gate, 1},
		{"a handle with a matcher", "handle /x/* {\napi_key_auth " + gate + "}", 1},
		{"a host", "@host host gate.internal\nroute @host {\napi_key_auth " + gate + "}", 1},
	} {
		before := warned()
		if err := g.load(trustTheTest, row.site); err != nil {
			t.Fatal(err)
		}
		if got := warned() - before; got != row.warns {
			t.Errorf("%s: %d warnings, want %d", row.name, got, row.warns)
		}
	}
	if a := g.ask("GET", "/"); a.Status != 200 { // else the warning is pointless
		t.Errorf("%d", a.Status)
	}
}
