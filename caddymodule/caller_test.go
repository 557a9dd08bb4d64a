package caddymodule_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
)

func TestUsageIsSeenAtOnce(t *testing.T) {
	g := start(t, ``, site)
	read, write := g.issue(reader), g.issue(writer)
	if a := g.lookUp(read); a.text("lastUsedAt") != "" {
		t.Errorf("used before it was: %s", a.Text)
	}
	for i, agent := range []string{"first/1.0", "second/2.0", "<b>third</b>\u202e", strings.Repeat("long", 1000)} {
		start := time.Now().Truncate(time.Millisecond)
		g.send("GET", "/", "", read.header(), "User-Agent: "+agent, "X-Forwarded-For: 203.0.113.9", "X-Real-IP: 203.0.113.9", "Forwarded: for=203.0.113.9")
		a := g.send("GET", "/v1/api-keys/"+read.ID, "", write.header())
		at, err := time.Parse(time.RFC3339, a.text("lastUsedAt"))
		want := []string{"first/1.0", "second/2.0", "<b>third</b>", strings.Repeat("long", 64)}[i]
		if err != nil || at.Before(start) || at.After(time.Now()) || a.text("lastUsedIp") != "127.0.0.1" || a.text("lastUsedUserAgent") != want {
			t.Errorf("%s", a.Text)
		}
	}
	// Management is a use too, of the key that was presented.
	g.send("GET", "/v1/api-keys/"+read.ID, "", write.header(), "User-Agent: manager")
	if a := g.lookUp(write); a.text("lastUsedUserAgent") != "manager" {
		t.Errorf("%s", a.Text)
	}
	if a := g.lookUp(read); a.text("lastUsedUserAgent") == "manager" {
		t.Errorf("%s", a.Text)
	}
}

func TestClientAddressIsTheOneThatTrustedProxiesTell(t *testing.T) {
	g := start(t, `
		servers {
			trusted_proxies static 127.0.0.0/8
		}`, site)
	k := g.issue(reader)
	for forwarded, want := range map[string]string{
		"203.0.113.9":                       "203.0.113.9",
		"2001:db8::1":                       "2001:db8::1",
		"::ffff:203.0.113.9":                "203.0.113.9",
		"fe80::1%eth0":                      "fe80::1",
		"203.0.113.9:99":                    "203.0.113.9",
		"rubbish":                           "127.0.0.1",
		"":                                  "127.0.0.1",
		strings.Repeat("203.0.113.9,", 900): "203.0.113.9",
	} {
		g.passed(g.send("GET", "/", "", k.header(), "X-Forwarded-For: "+forwarded))
		if got := g.lookUp(k).text("lastUsedIp"); got != want {
			t.Errorf("%.40q: lastUsedIp is %q, want %q", forwarded, got, want)
		}
	}
}

// In TLS early data the address is not verified yet.
func TestAddressOfEarlyDataIsNotRecorded(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	gate := new(caddymodule.Gate)
	if err := gate.Provision(caddy.ActiveContext()); err != nil {
		t.Fatal(err)
	}
	arrived := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		_, err := io.WriteString(w, "arrived")
		return err
	})
	for complete, want := range map[bool]string{true: "192.0.2.1", false: ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS = &tls.ConnectionState{HandshakeComplete: complete}
		r.Header.Set("Authorization", "Bearer "+k.Token)
		r.Header.Set("User-Agent", fmt.Sprint("complete: ", complete))
		w := httptest.NewRecorder()
		if err := gate.ServeHTTP(w, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server)), arrived); err != nil || w.Body.String() != "arrived" {
			t.Error(w.Body, err)
		}
		if a := g.lookUp(k); a.text("lastUsedIp") != want || a.text("lastUsedUserAgent") != r.UserAgent() {
			t.Errorf("%s", a.Text)
		}
	}
}

func TestAccessLogNamesTheCaller(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	account := g.issue(`"serviceAccountId":"backup"`)
	revoked := g.issueRevoked()
	wrong := key{k.ID, forge(idOf(k.Token), swap(secretOf(k.Token), 0))}
	for _, row := range []struct {
		path, method string
		by           key
		user, id     any
	}{
		{"/user", "GET", k, "alice", k.ID},
		{"/account", "GET", account, "backup", account.ID},
		{"/v1/api-keys/nothing", "GET", k, "alice", k.ID},
		{"/scope", "POST", account, "", account.ID}, // refused, but known
		{"/revoked", "GET", revoked, "", revoked.ID},
		{"/wrong", "GET", wrong, "", nil},
	} {
		g.send(row.method, row.path, "", row.by.header())
		line := g.awaitLog(func(line map[string]any) bool {
			request, _ := line["request"].(map[string]any)
			return line["msg"] == "handled request" && request["uri"] == row.path
		})
		if line["user_id"] != row.user || line["api_key_id"] != row.id {
			t.Errorf("%s: user_id %v, api_key_id %v", row.path, line["user_id"], line["api_key_id"])
		}
	}
}

func TestPlaceholdersNameTheCaller(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth
			request_header X-Organization-Id acme changed
			respond "{http.auth.user.id} {http.auth.user.key_id} {http.auth.user.organization_id} {http.auth.user.scope}"
		}`)
	k := g.issue(`"serviceAccountId":"backup","scope":"read-write"`)
	if a := g.send("GET", "/", "", k.header()); a.Text != fmt.Sprintf("backup %s acme read-write", k.ID) {
		t.Errorf("%s", a.Text)
	}
}

// What a handler of errors sends on is no more than what the gate would.
func TestErrorRoutesDoNotGetTheCredential(t *testing.T) {
	g := start(t, ``, `
		route {
			api_key_auth
			error 500
		}
		handle_errors {
			reverse_proxy UPSTREAM
		}`)
	k := g.issue(reader)
	g.send("GET", "/", "", k.header(), "X-User-Id: root")
	seen := g.upstream.take()
	if len(seen) != 1 || seen[0].Header.Get("Authorization") != "" || !slices.Equal(seen[0].Header["X-User-Id"], []string{"alice"}) {
		t.Errorf("the upstream received %v", seen)
	}
	// A refusal is an answer, not an error.
	g.refused(g.send("GET", "/", "", "X-User-Id: root"), 401, "no_credential", plainBearer)
}
