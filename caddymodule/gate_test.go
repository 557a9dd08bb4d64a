package caddymodule_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
)

const site = `
	api_keys
	reverse_proxy UPSTREAM
`

func TestGateAnswersEveryCredentialAsItsTableSays(t *testing.T) {
	g := start(t, allowHTTP2, site)
	k := g.issue(reader)
	token := k.Token
	rows := []struct {
		name      string
		headers   []string
		status    int // 0: passes
		reason    string
		challenge string
	}{
		{"no credential", nil, 401, "no_credential", plainBearer},
		{"Basic with the token as user", []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(token+":"))}, 401, "no_credential", plainBearer},
		{"Basic with the token as password", []string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+token))}, 401, "no_credential", plainBearer},
		{"no scheme", []string{"Authorization: " + token}, 401, "no_credential", plainBearer},
		{"Token scheme", []string{"Authorization: Token " + token}, 401, "no_credential", plainBearer},
		{"scheme that only starts like Bearer", []string{"Authorization: BearerX " + token}, 401, "no_credential", plainBearer},
		{"tab for a space", []string{"Authorization: Bearer\t" + token}, 401, "no_credential", plainBearer},
		{"no-break space for a space", []string{"Authorization: Bearer\u00a0" + token}, 401, "no_credential", plainBearer},
		{"Proxy-Authorization only", []string{"Proxy-Authorization: Bearer " + token}, 401, "no_credential", plainBearer},
		{"X-Api-Key only", []string{"X-Api-Key: " + token}, 401, "no_credential", plainBearer},
		{"cookie only", []string{"Cookie: access_token=" + token}, 401, "no_credential", plainBearer},
		{"underscore in the name", []string{"Author_ization: Bearer " + token}, 401, "no_credential", plainBearer},
		{"dot in the name", []string{"Authorization.: Bearer " + token}, 401, "no_credential", plainBearer},

		{"the key", []string{k.header()}, 0, "", ""},
		{"lower-case scheme", []string{"Authorization: bearer " + token}, 0, "", ""},
		{"upper-case scheme", []string{"Authorization: BEARER " + token}, 0, "", ""},
		{"mixed scheme", []string{"Authorization: bEaReR " + token}, 0, "", ""},
		{"many spaces", []string{"Authorization: Bearer    " + token}, 0, "", ""},
		{"spaces around", []string{"Authorization:   Bearer " + token + " \t"}, 0, "", ""},
		{"lower-case name", []string{"authorization: Bearer " + token}, 0, "", ""},
		{"upper-case name", []string{"AUTHORIZATION: Bearer " + token}, 0, "", ""},

		{"the key twice", []string{k.header(), k.header()}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"the key and Basic", []string{k.header(), "Authorization: Basic Og=="}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"Basic and the key", []string{"Authorization: Basic Og==", k.header()}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"comma list", []string{"Authorization: Bearer " + token + ", Bearer " + token}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"a word after the key", []string{k.header() + " extra"}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"a word after a tab", []string{k.header() + "\textra"}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"a word before the key", []string{"Authorization: Bearer extra " + token}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"empty header", []string{"Authorization: "}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"scheme alone", []string{"Authorization: Bearer"}, 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},

		{"comma after the key", []string{k.header() + ","}, 401, "invalid_token", invalidToken},
		{"equals sign after the key", []string{k.header() + "="}, 401, "invalid_token", invalidToken},
		{"quoted", []string{`Authorization: Bearer "` + token + `"`}, 401, "invalid_token", invalidToken},
		{"another case", []string{"Authorization: Bearer ak_" + strings.ToUpper(token[3:])}, 401, "invalid_token", invalidToken},
		{"upper-case prefix", []string{"Authorization: Bearer AK_" + token[3:]}, 401, "invalid_token", invalidToken},
		{"mistyped id", []string{"Authorization: Bearer " + swap(token, 10)}, 401, "invalid_token", invalidToken},
		{"mistyped secret", []string{"Authorization: Bearer " + swap(token, 40)}, 401, "invalid_token", invalidToken},
		{"mistyped checksum", []string{"Authorization: Bearer " + swap(token, len(token)-1)}, 401, "invalid_token", invalidToken},
		{"one character less", []string{"Authorization: Bearer " + token[:len(token)-1]}, 401, "invalid_token", invalidToken},
		{"one character more", []string{"Authorization: Bearer " + token + "0"}, 401, "invalid_token", invalidToken},
		{"the prefix alone", []string{"Authorization: Bearer ak_"}, 401, "invalid_token", invalidToken},
		{"the id alone", []string{"Authorization: Bearer " + k.ID}, 401, "invalid_token", invalidToken},
		{"another brand", []string{"Authorization: Bearer sk_" + token[3:]}, 401, "invalid_token", invalidToken},
		{"unknown id", []string{"Authorization: Bearer " + forge(swap(idOf(token), 20), secretOf(token))}, 401, "invalid_token", invalidToken},
		{"wrong secret", []string{"Authorization: Bearer " + forge(idOf(token), swap(secretOf(token), 20))}, 401, "invalid_token", invalidToken},
		{"secret of zeros", []string{"Authorization: Bearer " + forge(idOf(token), strings.Repeat("0", 43))}, 401, "invalid_token", invalidToken},
		{"id of more than 128 bits", []string{"Authorization: Bearer " + forge(strings.Repeat("z", 22), secretOf(token))}, 401, "invalid_token", invalidToken},
		{"full-width letters", []string{"Authorization: Bearer ａｋ_" + token[3:]}, 401, "invalid_token", invalidToken},
		{"Cyrillic а", []string{"Authorization: Bearer аk_" + token[3:]}, 401, "invalid_token", invalidToken},
		{"zero-width space", []string{"Authorization: Bearer " + token[:30] + "\u200b" + token[30:]}, 401, "invalid_token", invalidToken},
		{"percent-encoded", []string{"Authorization: Bearer " + strings.ReplaceAll(url.QueryEscape(token), "_", "%5F")}, 401, "invalid_token", invalidToken},
		{"base64", []string{"Authorization: Bearer " + base64.StdEncoding.EncodeToString([]byte(token))}, 401, "invalid_token", invalidToken},
		{"512 bytes", []string{"Authorization: Bearer " + strings.Repeat("a", 512)}, 401, "invalid_token", invalidToken},
		{"513 bytes", []string{"Authorization: Bearer " + strings.Repeat("a", 513)}, 401, "invalid_token", invalidToken},
		{"15 KiB", []string{"Authorization: Bearer " + strings.Repeat("a", 15<<10)}, 401, "invalid_token", invalidToken},
		{"expired", []string{g.issueExpired().header()}, 401, "invalid_token", invalidToken},
		{"revoked", []string{g.issueRevoked().header()}, 401, "invalid_token", invalidToken},
	}
	ids := make(map[string]int) // the status of each request id
	for _, protocol := range []string{"HTTP 1.1", "HTTP 2"} {
		if protocol == "HTTP 2" {
			g.overHTTP2()
		}
		for _, row := range rows {
			t.Run(protocol+"/"+row.name, func(t *testing.T) {
				g := *g
				g.TB = t
				a := g.send("GET", "/things", "", row.headers...)
				if row.status == 0 {
					g.passed(a)
					return
				}
				g.refused(a, row.status, row.reason, row.challenge)
				ids[a.RequestID] = a.Status
			})
		}
	}
	g.await("every request id in the access log", func() bool {
		left := maps.Clone(ids)
		for _, line := range g.logged() {
			if id, _ := line["uuid"].(string); left[id] != 0 && line["status"] == float64(left[id]) {
				delete(left, id)
			}
		}
		return len(left) == 0 && len(ids) > 80
	})
}

func TestUnknownMistypedExpiredAndRevokedKeysGetTheSameAnswer(t *testing.T) {
	g := start(t, ``, site)
	token := g.issue(reader).Token
	var first string
	for _, bad := range []string{
		"ak_", "x", swap(token, 70), forge(swap(idOf(token), 20), secretOf(token)), forge(idOf(token), swap(secretOf(token), 0)),
		g.issueExpired().Token, g.issueRevoked().Token,
	} {
		a := g.send("GET", "/", "", "Authorization: Bearer "+bad)
		a.Header.Del("Date")
		got := strings.ReplaceAll(fmt.Sprint(a.Status, a.Header, a.Text), a.RequestID, "the request id")
		if first == "" {
			first = got
		}
		if got != first || a.Status != 401 {
			t.Errorf("%s gets\n%s\nand another one\n%s", bad, got, first)
		}
	}
}

func TestMistypedKeysAreRefusedWithoutALookup(t *testing.T) {
	g := start(t, ``, site)
	token := g.issue(reader).Token
	before := g.metrics()["caddy_api_keys_index_misses_total"]
	for i := 3; i < len(token); i += 7 {
		g.refused(g.send("GET", "/", "", "Authorization: Bearer "+swap(token, i)), 401, "invalid_token", invalidToken)
	}
	if after := g.metrics()["caddy_api_keys_index_misses_total"]; after != before {
		t.Errorf("%s lookups before, %s after", before, after)
	}
}

// What only a raw connection can send.
func TestGateIsNotFooledByTheFormOfTheHeader(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	for _, row := range []struct {
		name, line string
		status     int
	}{
		{"spaces and tabs around", "Authorization: \t Bearer " + k.Token + " \t ", 200},
		{"folded", "Authorization: Bearer\n " + k.Token, 200},
		{"folded into two words", "Authorization: Bearer " + k.Token + "\n extra", 400},
		{"space before the colon", "Authorization : Bearer " + k.Token, 400},
		{"NUL", "Authorization: Bearer " + k.Token + "\x00", 400},
		{"DEL", "Authorization: Bearer " + k.Token + "\x7f", 400},
		{"CR", "Authorization: Bearer " + k.Token[:9] + "\r" + k.Token[9:], 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := *g
			g.TB = t
			a := g.raw("GET / HTTP/1.1\nHost: x\nConnection: close\n" + row.line + "\n\n")
			seen := g.upstream.take()
			if a.Status != row.status || len(seen) > 0 != (row.status == 200) {
				t.Errorf("got %d %s, and the upstream received %v", a.Status, a.Text, seen)
			}
		})
	}
	t.Run("only in a trailer", func(t *testing.T) {
		g := *g
		g.TB = t
		g.refused(g.raw("POST / HTTP/1.1\nHost: x\nConnection: close\nTransfer-Encoding: chunked\nTrailer: Authorization\n\n0\n"+k.header()+"\n\n"),
			401, "no_credential", plainBearer)
	})
}

func TestTokensElsewhereThanInTheHeaderAreNoCredential(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	g.refused(g.send("GET", "/?api_key="+k.Token+"&access_token="+k.Token, ""), 401, "no_credential", plainBearer)
	g.refused(g.send("POST", "/", "access_token="+k.Token, "Content-Type: application/x-www-form-urlencoded"), 401, "no_credential", plainBearer)
}

func TestRefusalsOfHEADHaveNoBody(t *testing.T) {
	g := start(t, ``, site)
	get := g.send("GET", "/", "")
	head := g.send("HEAD", "/", "")
	for _, a := range []answer{get, head} {
		a.Header.Del("Date")
	}
	if head.Status != 401 || head.Text != "" || fmt.Sprint(head.Header) != fmt.Sprint(get.Header) {
		t.Errorf("HEAD: %d %v %q\nGET: %v", head.Status, head.Header, head.Text, get.Header)
	}
}

func TestEachRequestOfAConnectionIsJudgedOnItsOwn(t *testing.T) {
	g := start(t, allowHTTP2, site)
	k := g.issue(reader)
	for _, protocol := range []func(){func() {}, g.overHTTP2} {
		protocol()
		g.passed(g.send("GET", "/", "", k.header()))
		g.refused(g.send("GET", "/", ""), 401, "no_credential", plainBearer)
		g.passed(g.send("GET", "/", "", k.header()))
	}
	g.revoke(k)
	g.refused(g.send("GET", "/", "", k.header()), 401, "invalid_token", invalidToken)
}

func TestRealmStandsInEveryChallenge(t *testing.T) {
	g := start(t, ``, `
		api_keys {
			realm `+"`an \"odd\\ realm`"+`
		}
		reverse_proxy UPSTREAM`)
	challenge := `Bearer realm="an \"odd\\ realm"`
	for _, path := range []string{"/", "/v1/api-keys"} {
		g.refused(g.send("GET", path, ""), 401, "no_credential", challenge)
		g.refused(g.send("GET", path, "", "Authorization: Bearer x"), 401, "invalid_token", challenge+`, error="invalid_token"`)
	}
}

func TestKeysOfOrganizationsThatAreNotAdmittedAreRefused(t *testing.T) {
	g := start(t, ``, `
		api_keys {
			organization acme initech
		}
		reverse_proxy UPSTREAM`)
	acme, globex, initech := g.issueFor("acme", writer), g.issueFor("globex", writer), g.issueFor("initech", writer)
	g.passed(g.send("POST", "/", "", acme.header()))
	g.passed(g.send("POST", "/", "", initech.header()))
	g.refused(g.send("GET", "/", "", globex.header()), 403, "organization_not_admitted", noChallenge)
	// Management of the same site is no way in.
	g.refused(g.send("GET", "/v1/api-keys", "", globex.header()), 403, "organization_not_admitted", noChallenge)
	g.refused(g.send("POST", "/v1/api-keys", `{"name":"x"}`, globex.header(), "Content-Type: application/json"), 403, "organization_not_admitted", noChallenge)
	if a := g.send("GET", "/v1/api-keys", "", acme.header()); a.Status != 200 {
		t.Errorf("management for acme: %d %s", a.Status, a.Text)
	}
	if used := g.lookUp(globex).text("lastUsedAt"); used != "" {
		t.Errorf("the refused key counts as used at %s", used)
	}
}
