package caddymodule_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// identityHeaders returns what the upstream was told of the caller, under names
// that are folded as lenient upstreams fold them.
func (r received) identityHeaders() map[string][]string {
	told := make(map[string][]string)
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for name, values := range h {
			folded := strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
					return c
				}
				return '-'
			}, strings.ToLower(name))
			switch folded {
			case "x-api-key-id", "x-organization-id", "x-user-id", "x-service-account-id", "x-api-key-scope", "x-consumer":
				told[folded] = append(told[folded], values...)
			}
		}
	}
	return told
}

func (g *gateway) tells(r received, want ...string) {
	g.Helper()
	told := r.identityHeaders()
	var got []string
	for name, values := range told {
		got = append(got, name+": "+strings.Join(values, " and "))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		g.Errorf("the upstream was told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestUpstreamIsToldWhoIsCalling(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	r := g.passed(g.send("GET", "/things?x=1", "", k.header(), "X-Request-Id: abc"))
	g.tells(r, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read")
	if r.Header.Get("Authorization") != "" || r.Header.Get("X-Request-Id") != "abc" || r.URI != "/things?x=1" {
		t.Errorf("the upstream received %v", r)
	}
	k = g.issueFor("globex", `"serviceAccountId":"backup","scope":"read-write"`)
	r = g.passed(g.send("POST", "/", "body", k.header()))
	g.tells(r, "x-api-key-id: "+k.ID, "x-organization-id: globex", "x-service-account-id: backup", "x-api-key-scope: read-write")
	if r.Body != "body" {
		t.Errorf("the upstream received the body %q", r.Body)
	}
}

// Caddy drops names with underscores and dots itself, but for those that it is
// told to expect.
var serverSettings = map[string]string{
	"default servers": allowHTTP2,
	"servers that expect aliases": `
		servers {
			protocols h1 h2c
			expected_underscore_headers X_* x_user_id X_Api_Key_Id X_Api_Key_Scope X-User_Id X_User.Id
			expected_dot_headers X.* X.User.Id X-Api.Key.Id X.Api_Key.Scope
		}`,
}

func TestClientsCannotSayWhoTheyAreInAnySpelling(t *testing.T) {
	for settings, global := range serverSettings {
		g := start(t, global, site)
		user, account := g.issue(reader), g.issue(`"serviceAccountId":"backup"`)
		for _, protocol := range []string{"HTTP 1.1", "HTTP 2"} {
			if protocol == "HTTP 2" {
				g.overHTTP2()
			}
			for _, name := range []string{
				"X-User-Id", "x-user-id", "X-USER-ID", "x-UsEr-iD", "X_User_Id", "x_user_id", "X_USER_ID", "X-User_Id", "X.User.Id", "X_User.Id", "X.User-Id",
				"X-Service-Account-Id", "X_Service_Account_Id", "X.Service.Account.Id",
				"X-Organization-Id", "X_Organization_Id", "X.Organization-Id",
				"X-Api-Key-Id", "X_Api_Key_Id", "X-Api.Key.Id", "X-Api-Key-Scope", "X_Api_Key_Scope", "X.Api_Key.Scope",
				// All that may stand in a name, beside letters and digits.
				"X!User#Id", "X$User%Id", "X&User'Id", "X*User+Id", "X^User`Id", "X|User~Id", "x+organization+id", "X~Api-Key.Scope",
			} {
				t.Run(settings+"/"+protocol+"/"+name, func(t *testing.T) {
					g := *g
					g.TB = t
					for _, forged := range [][]string{{name + ": root"}, {name + ": root", name + ": admin"}, {name + ": "}} {
						g.tells(g.passed(g.send("GET", "/", "", append(forged, user.header())...)),
							"x-api-key-id: "+user.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read")
						g.tells(g.passed(g.send("GET", "/", "", append(forged, account.header())...)),
							"x-api-key-id: "+account.ID, "x-organization-id: acme", "x-service-account-id: backup", "x-api-key-scope: read")
					}
				})
			}
		}
	}
}

func TestHeadersThatChangeTheMethodOrTheProxyNeverReachTheUpstream(t *testing.T) {
	for settings, global := range serverSettings {
		t.Run(settings, func(t *testing.T) {
			g := start(t, global, site)
			k := g.issue(writer)
			for _, name := range []string{
				"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x-http-method-override", "X_HTTP_METHOD_OVERRIDE", "X.Http.Method", "X_Method-Override",
				"X^Http^Method^Override", "x+http!method", "X~Method*Override",
				"Proxy", "PROXY",
			} {
				r := g.passed(g.send("GET", "/", "", k.header(), name+": DELETE"))
				if strings.Contains(fmt.Sprint(r.Header), "DELETE") {
					t.Errorf("%s: the upstream received %v", name, r.Header)
				}
			}
			r := g.passed(g.send("GET", "/", "", k.header(), "Proxy-Authorization: Bearer "+k.Token, "Proxy-Connection: keep-alive"))
			if r.Header.Get("Proxy-Authorization") != "" {
				t.Errorf("the upstream received %v", r.Header)
			}
		})
	}
}

func TestConnectionHeaderCannotTakeTheIdentityAway(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	for _, lines := range []string{
		"Connection: X-Api-Key-Id",
		"Connection: X-User-Id, X-Organization-Id, X-Api-Key-Scope, X-Api-Key-Id, X-Service-Account-Id",
		"connection: close, x-user-id",
		"Connection: close\nConnection: X-User-Id\nConnection: ,\tX-Organization-Id\t,,",
		"Connection: \"X-User-Id\", X-USER-ID",
		"Connection: Authorization",
		"Connection: X-Forwarded-For, X-User-Id",
		"Keep-Alive: X-User-Id",
		"Proxy-Connection: X-User-Id",
		"TE: trailers, X-User-Id",
		"Connection: x_user_id, X.User.Id",
	} {
		t.Run(lines, func(t *testing.T) {
			g := *g
			g.TB = t
			r := g.passed(g.raw("GET / HTTP/1.1\nHost: x\n" + lines + "\n" + k.header() + "\n\n"))
			g.tells(r, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read")
			if r.Header.Get("X-Forwarded-For") != "127.0.0.1" || r.Header.Get("Authorization") != "" {
				t.Errorf("the upstream received %v", r.Header)
			}
		})
	}
}

func TestConnectionHeaderStillServesForOtherThings(t *testing.T) {
	g := start(t, ``, site)
	r := g.passed(g.raw("GET / HTTP/1.1\nHost: x\nConnection: X-Hop, X-User-Id\nX-Hop: 1\nX-Other: 2\n" + g.issue(reader).header() + "\n\n"))
	if r.Header.Get("X-Hop") != "" || r.Header.Get("X-Other") != "2" {
		t.Errorf("the upstream received %v", r.Header)
	}
}

func TestTrailersCannotCarryAnIdentityOrAToken(t *testing.T) {
	g := start(t, allowHTTP2, site)
	k := g.issue(writer)
	trailers := []string{"X-User-Id: root", "x_organization_id: globex", "X.Api.Key.Scope: all", "X+User!Id: root", "Authorization: Bearer " + k.Token, "X-Api-Key: " + k.Token, "Checksum: abc"}
	check := func(t *testing.T, a answer, checksum string) {
		t.Helper()
		g := *g
		g.TB = t
		r := g.passed(a)
		g.tells(r, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read-write")
		if r.Body != "body" || r.Trailer.Get("Checksum") != checksum || strings.Contains(fmt.Sprint(r), "ak_") {
			t.Errorf("the upstream received %v", r)
		}
	}
	chunked := "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n" + k.header() + "\n"
	body := "\n4\nbody\n0\n" + strings.Join(trailers, "\n") + "\n\n"
	for _, row := range []struct{ name, declared, checksum string }{
		{"all declared", "Trailer: X-User-Id, x_organization_id, X.Api.Key.Scope, X+User!Id, Authorization, X-Api-Key, Checksum\n", "abc"},
		{"some declared", "Trailer: Checksum\n", "abc"},
		{"declared as a list of nothing", "Trailer: ,\n", ""},
		{"none declared", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) { check(t, g.raw(chunked+row.declared+body), row.checksum) })
	}
	for _, protocol := range []string{"HTTP 1.1", "HTTP 2"} {
		if protocol == "HTTP 2" {
			g.overHTTP2()
		}
		t.Run("by the client over "+protocol, func(t *testing.T) {
			req, err := http.NewRequest("POST", "http://"+g.site+"/", struct{ *strings.Reader }{strings.NewReader("body")})
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+k.Token)
			req.Trailer = make(http.Header)
			for _, line := range trailers {
				name, value, _ := strings.Cut(line, ": ")
				if name == "Authorization" && protocol == "HTTP 2" {
					continue // a stream error
				}
				req.Trailer[http.CanonicalHeaderKey(name)] = []string{value}
			}
			resp, err := g.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			check(t, read(t, resp), "abc")
		})
	}
}

func TestTokenInXApiKeyDoesNotReachTheUpstream(t *testing.T) {
	for settings, global := range serverSettings {
		t.Run(settings, func(t *testing.T) {
			g := start(t, global, site)
			k := g.issue(reader)
			for _, value := range []string{k.Token, " " + k.Token, "Bearer " + k.Token, swap(k.Token, 60), k.Token + "," + k.Token} {
				for _, name := range []string{"X-Api-Key", "x-api-key", "X-API-KEY", "X_Api_Key", "X.Api.Key", "X-Api.Key", "X+Api+Key", "x!api~key"} {
					r := g.passed(g.send("GET", "/", "", k.header(), name+": "+value))
					if strings.Contains(fmt.Sprint(r), "ak_") {
						t.Errorf("%s: the upstream received %v", name, r)
					}
				}
			}
			r := g.passed(g.send("GET", "/", "", k.header(), "X-Api-Key: theirs", "X-Api-Key: "+k.Token))
			if strings.Contains(fmt.Sprint(r), "ak_") {
				t.Errorf("the upstream received %v", r)
			}
		})
	}
}

func TestForeignXApiKeyIsLeftAlone(t *testing.T) {
	g := start(t, ``, site)
	r := g.passed(g.send("GET", "/", "", g.issue(reader).header(), "X-Api-Key: theirs-123"))
	if got := r.Header.Get("X-Api-Key"); got != "theirs-123" {
		t.Errorf("it arrived as %q", got)
	}
}

func TestForwardCredentialLeavesTheKeyInTheRequest(t *testing.T) {
	g := start(t, ``, `
		api_keys {
			forward_credential
		}
		reverse_proxy UPSTREAM`)
	k := g.issue(reader)
	r := g.passed(g.send("GET", "/", "", k.header(), "X-User-Id: root"))
	if got := r.Header["Authorization"]; !slices.Equal(got, []string{"Bearer " + k.Token}) {
		t.Errorf("Authorization arrived as %v", got)
	}
	g.tells(r, "x-api-key-id: "+k.ID, "x-organization-id: acme", "x-user-id: alice", "x-api-key-scope: read")
	// Another header than the one that was checked is still no place for it.
	if r := g.passed(g.send("GET", "/", "", k.header(), "X-Api-Key: "+k.Token)); r.Header.Get("X-Api-Key") != "" {
		t.Errorf("X-Api-Key arrived as %v", r.Header["X-Api-Key"])
	}
}

func TestIdentityHeadersCanBeRenamed(t *testing.T) {
	g := start(t, ``, `
		api_keys {
			identity_header user_id x-consumer
			identity_header service_account_id X-User-Id
		}
		reverse_proxy UPSTREAM`)
	user, account := g.issue(reader), g.issue(`"serviceAccountId":"backup"`)
	forged := []string{"X-Consumer: root", "X-User-Id: root", "X-Service-Account-Id: root"}
	g.tells(g.passed(g.send("GET", "/", "", append(forged, user.header())...)),
		"x-api-key-id: "+user.ID, "x-organization-id: acme", "x-consumer: alice", "x-api-key-scope: read")
	g.tells(g.passed(g.send("GET", "/", "", append(forged, account.header())...)),
		"x-api-key-id: "+account.ID, "x-organization-id: acme", "x-user-id: backup", "x-api-key-scope: read")
}

func TestIdentityHeadersThatCannotBeAreAnError(t *testing.T) {
	g := start(t, ``, site)
	for word, want := range map[string]string{
		"identity_header tenant X-Tenant":                         `unknown name "tenant"; known are key_id, organization_id, user_id, service_account_id, scope`,
		"identity_header user_id X_User":                          `"X_User" is not a name for a header`,
		`identity_header user_id "X User"`:                        `"X User" is not a name for a header`,
		"identity_header user_id X:User":                          `"X:User" is not a name for a header`,
		"identity_header user_id " + strings.Repeat("x", 64):      `is not a name for a header: use up to 63 letters, digits and hyphens`,
		"identity_header user_id X-Organization-Id":               `X-Organization-Id is named twice`,
		"identity_header user_id A-b\nidentity_header key_id a-B": `A-B is named twice`,
	} {
		err := g.load(``, "api_keys {\n"+word+"\n}\nreverse_proxy UPSTREAM")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %s", word, err, want)
		}
	}
}

// The first gate takes the credential out; the second must know who it was, and
// do all that it is configured to.
func TestGatesInARowShareOneVerdict(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth
			api_key_auth {
				organization acme globex
				identity_header user_id X-Consumer
			}
			api_key_auth /acme/* {
				organization acme
			}
			reverse_proxy UPSTREAM
		}`)
	acme, globex := g.issueFor("acme", reader), g.issueFor("globex", reader)
	initech := g.issueFor("initech", reader)
	for _, forged := range []string{"X-Other: 1", "X-Consumer: root", "X_Consumer: root", "X-User-Id: root", "Connection: X-Consumer"} {
		g.tells(g.passed(g.send("GET", "/", "", forged, globex.header())),
			"x-api-key-id: "+globex.ID, "x-organization-id: globex", "x-consumer: alice", "x-api-key-scope: read")
	}
	g.tells(g.passed(g.send("GET", "/acme/", "", acme.header(), "X-User-Id: root", "X-Consumer: root")),
		"x-api-key-id: "+acme.ID, "x-organization-id: acme", "x-user-id: alice", "x-consumer: alice", "x-api-key-scope: read")
	g.refused(g.send("GET", "/acme/", "", globex.header()), 403, "organization_not_admitted", noChallenge)
	g.refused(g.send("GET", "/", "", initech.header()), 403, "organization_not_admitted", noChallenge)
	g.refused(g.send("GET", "/acme/", ""), 401, "no_credential", plainBearer)
}

func TestRequestThroughSeveralGatesIsOneUse(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth
			api_key_auth
			api_key_management
			reverse_proxy UPSTREAM
		}`)
	k := g.issue(reader)
	before := g.metrics()[`caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`]
	g.passed(g.send("GET", "/", "", k.header()))
	after := g.metrics()[`caddy_api_keys_verdicts_total{outcome="allowed",reason="none"}`]
	if number(t, after)-number(t, before) != 1 {
		t.Errorf("%s verdicts before, %s after", before, after)
	}
}
