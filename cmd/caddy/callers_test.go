package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

// signInSite has people who sign in: at /basic with a password, at /copied and
// /answered by another server, whose word is taken from the headers that
// forward_auth copies, and from its answer. Keys come in X-API-Key, which the
// debug log of forward_auth would show.
const signInSite = `{
	admin {$ADMIN}
	debug
	grace_period 3s
	log {
		format filter {
			request api_key
		}
	}
}

http://127.0.0.1:{$PORT} {
	log
	basic_auth /basic* {
		bob $2a$04$tUrrU830e6bsChdHdGGthO5zDQN1AjAVhpJaP5NzNKW21rQKSaYZa
	}
	@others path /copied* /answered*
	forward_auth @others {$AUTH} {
		uri /check
		copy_headers Remote-User Remote-Organization
	}
	api_key_management {
		path /basic
		header X-API-Key
		identity {
			organization acme
			user {http.auth.user.id}
		}
	}
	api_key_management /copied* {
		path /copied
		header X-API-Key
		identity {
			organization {header.Remote-Organization}
			user {header.Remote-User}
		}
	}
	api_key_management /answered* {
		path /answered
		header X-API-Key
		identity {
			organization {http.reverse_proxy.header.Remote-Organization}
			service_account {http.reverse_proxy.header.Remote-User}
		}
	}
	api_key_auth {
		header X-API-Key
	}
	reverse_proxy {$UPSTREAM}
}
`

// startSignIn starts a gateway and the server that knows who signed in: whoever a
// cookie says. It lets strangers pass, as servers do that leave some pages open.
func startSignIn(t *testing.T) *gateway {
	t.Helper()
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := r.Cookie("session")
		switch {
		case err != nil:
		case session.Value == "expired":
			w.WriteHeader(http.StatusUnauthorized)
		case session.Value == "blank":
			w.Header()["Remote-User"], w.Header()["Remote-Organization"] = []string{""}, []string{""}
		case session.Value == "nowhere":
			w.Header().Set("Remote-User", "carol")
		default:
			w.Header().Set("Remote-User", session.Value)
			w.Header().Set("Remote-Organization", "acme")
		}
	}))
	t.Cleanup(auth.Close)
	g := newGateway(t, signInSite)
	g.env = append(g.env, "AUTH="+auth.URL)
	g.start()
	return g
}

const (
	bobSignsIn   = "Authorization: Basic Ym9iOmhpY2N1cA=="
	carolSignsIn = "Cookie: session=carol"
)

// claims are what a stranger says of himself.
var claims = []string{"Remote-User: root", "remote-user: root", "Remote_User: root", "Remote-Organization: acme", "remote-organization: acme",
	"X-User-Id: root", "X-Organization-Id: acme", "X-Api-Key-Id: key_0352LEivjpyT0uQI9pd2Xs", "X-Api-Key-Scope: read-write", "Connection: Remote-User, X-User-Id"}

func TestWhoSignedInByOtherMeansManagesKeys(t *testing.T) {
	g := startSignIn(t)
	for _, row := range []struct{ path, signsIn, owner, field string }{
		{"/basic", bobSignsIn, "bob", "userId"},
		{"/copied", carolSignsIn, "carol", "userId"},
		{"/answered", carolSignsIn, "carol", "serviceAccountId"},
	} {
		for _, more := range [][]string{nil, claims} {
			headers := append([]string{row.signsIn, asJSON}, more...)
			made := g.requireKey(g.do("POST", row.path, `{"name":"x","scope":"read-write"}`, headers...))
			if made[row.field] != row.owner || made["createdBy"] != row.owner || made["organizationId"] != "acme" {
				t.Errorf("%s made %v", row.path, made)
			}
			if a := g.do("GET", row.path, "", headers...); a.status != 200 {
				t.Errorf("%s: HTTP %d %s", row.path, a.status, a.body)
			}
			// Elsewhere the key is wanted, and is enough.
			g.requireRefused(g.do("GET", "/", "", headers...), 401, "no_credential")
			g.requireStatus(200, "POST", "/", made["key"])
			if shown := g.requireKey(g.do("DELETE", row.path+"/"+made["id"], "", headers...)); shown["revokedAt"] == "" {
				t.Errorf("%s shows %v", row.path, shown)
			}
		}
	}
}

func TestNobodyIsNotACaller(t *testing.T) {
	g := startSignIn(t)
	for _, path := range []string{"/copied", "/answered"} {
		for _, session := range []string{"Cookie: none=", "Cookie: session=blank", "Cookie: session=nowhere", "Cookie: session=", "Cookie: session=two words"} {
			for _, more := range [][]string{nil, claims} {
				headers := append([]string{session, asJSON}, more...)
				g.requireRefused(g.do("POST", path, `{"name":"x"}`, headers...), 401, "no_credential")
				g.requireRefused(g.do("GET", path, "", headers...), 401, "no_credential")
			}
		}
		if a := g.do("GET", path, "", "Cookie: session=expired"); a.status != 401 {
			t.Errorf("%s: a session that is over: HTTP %d", path, a.status)
		}
	}
	for _, header := range []string{"X-User-Id: bob", "Authorization: Basic Ym9iOndyb25n"} {
		if a := g.do("GET", "/basic", "", header); a.status != 401 {
			t.Errorf("%s: HTTP %d %s", header, a.status, a.body)
		}
	}
	if text := g.get("/api_keys/export"); text != "" {
		t.Errorf("somebody made keys: %s", text)
	}
}

func TestAPresentedKeyAloneDecidesWhoIsCalling(t *testing.T) {
	g := startSignIn(t)
	alice, read, foreign := g.issueIn("acme", "alice"), g.issue(nil), g.issueIn("globex", "mallory")
	revoked := g.issue(nil)
	g.run(g.command("api-keys", "revoke", revoked["id"]))
	for path, signsIn := range map[string]string{"/basic": bobSignsIn, "/copied": carolSignsIn, "/answered": carolSignsIn} {
		present := func(token string, more ...string) answer {
			return g.do("POST", path, `{"name":"x"}`, append(append([]string{"X-Api-Key: " + token, signsIn, asJSON}, more...), claims...)...)
		}
		for _, key := range []map[string]string{alice, foreign} {
			made := g.requireKey(present(key["key"]))
			if made["createdBy"] != key["userId"] || made["organizationId"] != key["organizationId"] {
				t.Errorf("%s: %s of %s made %v", path, key["userId"], key["organizationId"], made)
			}
		}
		g.requireRefused(present(read["key"]), 403, "insufficient_scope")
		g.requireRefused(present(revoked["key"]), 401, "invalid_token")
		g.requireRefused(present("x"), 401, "invalid_token")
		g.requireRefused(present(""), 400, "invalid_request")
		if path != "/basic" { // its own Authorization is a password
			g.requireRefused(present(alice["key"], bearer(alice)), 400, "invalid_request")
			g.requireRefused(g.do("POST", path, `{"name":"x"}`, "Authorization: Bearer x", signsIn, asJSON), 401, "invalid_token")
			if made := g.requireKey(g.do("POST", path, `{"name":"x"}`, bearer(alice), signsIn, asJSON)); made["createdBy"] != "alice" {
				t.Errorf("%s: alice made %v", path, made)
			}
		}
	}
}

func TestAGateAdmitsTheOrganizationsThatItNames(t *testing.T) {
	g := startGateway(t, `{
	admin {$ADMIN}
}

http://127.0.0.1:{$PORT} {
	api_key_management /acme/* {
		path /acme/keys
		organization acme
	}
	api_key_auth /acme/* {
		organization acme
	}
	api_key_auth /both/* {
		organization acme globex
	}
	api_key_auth
	reverse_proxy {$UPSTREAM}
}
`)
	keys := map[string]map[string]string{}
	for _, organization := range []string{"acme", "globex", "initech"} {
		keys[organization] = g.issueIn(organization, "alice")
	}
	for path, admitted := range map[string][]string{"/acme/x": {"acme"}, "/acme/keys": {"acme"}, "/both/x": {"acme", "globex"}, "/x": {"acme", "globex", "initech"}} {
		for organization, key := range keys {
			a := g.do("GET", path, "", bearer(key), "X-Organization-Id: acme")
			if slices.Contains(admitted, organization) {
				if a.status != 200 {
					t.Errorf("%s at %s: HTTP %d %s", organization, path, a.status, a.body)
				}
				continue
			}
			g.requireRefused(a, 403, "organization_not_admitted")
		}
	}
	for _, r := range g.upstream.seen() {
		if r.URL.Path == "/acme/x" && r.Header.Get("X-Organization-Id") != "acme" {
			t.Errorf("the upstream was asked by %s", r.Header.Get("X-Organization-Id"))
		}
	}
}

func TestAllKeysOfAnOwnerOrOfAKeyAreRevokedInOneCall(t *testing.T) {
	g := startGateway(t, plainSite)
	boss, bob, foreign := g.issueIn("acme", "boss"), g.issueIn("acme", "bob"), g.issueIn("globex", "bob")
	create := func(by map[string]string, more string) map[string]string {
		t.Helper()
		return g.requireKey(g.do("POST", "/v1/api-keys", `{"name":"x"`+more+`}`, bearer(by), asJSON))
	}
	ofAlice := []map[string]string{g.issue(nil), g.issue(nil), g.issue(nil)}
	ofBackup := []map[string]string{create(bob, `,"serviceAccountId":"backup"`), create(boss, `,"serviceAccountId":"backup"`)}
	madeByBob := []map[string]string{create(bob, ``), create(bob, `,"serviceAccountId":"other"`)}
	bystanders := []map[string]string{boss, foreign, create(boss, ``), g.requireKey(g.do("POST", "/v1/api-keys", `{"name":"x","serviceAccountId":"backup"}`, bearer(foreign), asJSON))}
	revoke := func(body string, want int) {
		t.Helper()
		a := g.do("POST", "/v1/api-keys/revoke", body, bearer(boss), asJSON)
		var done struct{ Data struct{ Revoked int } }
		if err := json.Unmarshal(a.body, &done); err != nil || a.status != 200 || done.Data.Revoked != want {
			t.Errorf("%s: HTTP %d %s, want %d revoked", body, a.status, a.body, want)
		}
	}
	all := func(status int, keys []map[string]string) {
		t.Helper()
		for _, key := range keys {
			g.requireStatus(status, "GET", "/", key["key"])
		}
	}
	for _, body := range []string{`{}`, `{"organizationId":"acme"}`, `{"userId":""}`} {
		if a := g.do("POST", "/v1/api-keys/revoke", body, bearer(boss), asJSON); a.status != 400 {
			t.Errorf("%s: HTTP %d %s", body, a.status, a.body)
		}
	}
	g.requireRefused(g.do("POST", "/v1/api-keys/revoke", `{"userId":"boss"}`, bearer(ofAlice[0]), asJSON), 403, "insufficient_scope")
	all(200, slices.Concat(ofAlice, ofBackup, madeByBob, bystanders))
	revoke(`{"userId":"alice"}`, 3)
	all(401, ofAlice)
	revoke(`{"serviceAccountId":"backup"}`, 2)
	all(401, ofBackup)
	all(200, slices.Concat(madeByBob, bystanders))
	revoke(fmt.Sprintf(`{"mintedBy":%q}`, bob["id"]), 2)
	all(401, madeByBob)
	all(200, append(bystanders, bob))
	revoke(`{"userId":"alice"}`, 0)
	revoke(fmt.Sprintf(`{"mintedBy":%q}`, foreign["id"]), 0)
	all(200, bystanders)
}
