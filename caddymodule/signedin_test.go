package caddymodule_test

import (
	"fmt"
	"testing"
)

const bobsPassword = "$2a$04$tUrrU830e6bsChdHdGGthO5zDQN1AjAVhpJaP5NzNKW21rQKSaYZa"

// signedIn is a site on which people sign in with a password, and keys come in
// two places. It fills in the organization, the user, and more words.
func signedIn(organization, user, more string) string {
	return fmt.Sprintf(`
		@basic header Authorization Basic*
		basic_auth @basic {
			bob %s
		}
		vars blank "a b"
		api_keys {
			header X-API-Key
			%s
			identity {
				organization %s
				user %s
			}
		}
		reverse_proxy UPSTREAM`, bobsPassword, more, organization, user)
}

func TestWhoeverSignedInByOtherMeansManagesKeys(t *testing.T) {
	g := start(t, ``, signedIn("acme", "{http.auth.user.id}", ""))
	made := g.send("POST", "/v1/api-keys", `{"name":"bobs","scope":"read-write"}`, bob, asJSON)
	if made.Status != 200 || made.text("userId") != "bob" || made.text("createdBy") != "bob" || made.text("organizationId") != "acme" {
		t.Fatalf("%d %s", made.Status, made.Text)
	}
	list := g.send("GET", "/v1/api-keys", "", bob)
	if items, _ := list.Data["items"].([]any); list.Status != 200 || len(items) != 1 {
		t.Errorf("%d %s", list.Status, list.Text)
	}
	if a := g.send("DELETE", "/v1/api-keys/"+made.text("id"), "", bob); a.Status != 200 || a.text("revokedAt") == "" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	// The gate wants a key.
	g.refused(g.send("GET", "/", "", bob), 401, "no_credential", plainBearer)
}

func TestAPresentedKeyAloneDecidesWhoIsCalling(t *testing.T) {
	g := start(t, ``, signedIn("acme", "{http.auth.user.id}", ""))
	k, read, revoked := g.issue(writer), g.issue(reader), g.issueRevoked()
	for _, header := range []string{"X-Api-Key: " + k.Token, k.header()} {
		headers := []string{header, asJSON}
		if header != k.header() {
			headers = append(headers, bob)
		}
		if a := g.send("POST", "/v1/api-keys", `{"name":"x"}`, headers...); a.Status != 200 || a.text("createdBy") != "alice" {
			t.Errorf("%d %s", a.Status, a.Text)
		}
	}
	before := g.keys()
	for _, row := range []struct {
		header            string
		status            int
		reason, challenge string
	}{
		{"X-Api-Key: x", 401, "invalid_token", invalidToken},
		{"X-Api-Key: " + revoked.Token, 401, "invalid_token", invalidToken},
		{"X-Api-Key: ", 400, "invalid_request", `Bearer realm="api", error="invalid_request"`},
		{"X-Api-Key: " + read.Token, 403, "insufficient_scope", insufficient},
	} {
		g.refused(g.send("POST", "/v1/api-keys", `{"name":"x"}`, row.header, bob, asJSON), row.status, row.reason, row.challenge)
	}
	g.refused(g.send("POST", "/v1/api-keys", `{"name":"x"}`, "Authorization: Bearer x", asJSON), 401, "invalid_token", invalidToken)
	if after := g.keys(); after != before {
		t.Errorf("%s keys before, %s after", before, after)
	}
}

func TestAKeyThatAGateTookOutStillDecides(t *testing.T) {
	g := start(t, ``, `
		route {
			vars user bob
			api_key_auth
			api_key_management {
				identity {
					organization acme
					user {http.vars.user}
				}
			}
		}`)
	k, read := g.issue(writer), g.issue(reader)
	if a := g.send("POST", "/v1/api-keys", `{"name":"x"}`, k.header(), asJSON); a.text("createdBy") != "alice" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if a := g.send("GET", "/v1/api-keys", "", read.header()); a.Status != 403 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

func TestNobodyIsNotACaller(t *testing.T) {
	g := start(t, ``, site)
	for _, who := range [][2]string{
		{"acme", "{http.auth.user.id}"},
		{"{http.auth.user.organization}", "bob"},
		{"acme", "user-{http.auth.user.id}"},
		{"team-{http.auth.user.team}", "bob"},
		{"acme", "{http.vars.blank}"},
	} {
		if err := g.load(``, signedIn(who[0], who[1], "")); err != nil {
			t.Fatal(err)
		}
		for _, headers := range [][]string{
			{asJSON},
			{asJSON, "X-User-Id: root", "X-Organization-Id: acme", "X-Api-Key-Id: key_0352LEivjpyT0uQI9pd2Xs", "X-Api-Key-Scope: read-write", "Remote-User: root"},
		} {
			g.refused(g.send("POST", "/v1/api-keys", `{"name":"x"}`, headers...), 401, "no_credential", plainBearer)
			g.refused(g.send("GET", "/v1/api-keys", "", headers...), 401, "no_credential", plainBearer)
		}
		if a := g.send("GET", "/v1/api-keys", "", "Authorization: Basic Ym9iOndyb25n"); a.Status != 401 {
			t.Errorf("with a wrong password: %d %s", a.Status, a.Text)
		}
	}
}

func TestHeadersOfTheClientDoNotChangeWhoSignedIn(t *testing.T) {
	g := start(t, ``, signedIn("acme", "{http.auth.user.id}", ""))
	a := g.send("POST", "/v1/api-keys", `{"name":"x"}`, bob, asJSON, "X-User-Id: root", "X-Organization-Id: globex", "X-Api-Key-Scope: read")
	if a.Status != 200 || a.text("createdBy") != "bob" || a.text("userId") != "bob" || a.text("organizationId") != "acme" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

func TestWhoSignedInCanBeAServiceAccountAndLimited(t *testing.T) {
	g := start(t, ``, fmt.Sprintf(`
		basic_auth {
			bob %s
		}
		api_key_management {
			path /limited
			identity {
				organization acme
				user {http.auth.user.id}
				scope read
			}
		}
		route {
			api_key_management {
				path /accounts
				identity {
					organization acme
					service_account {http.auth.user.id}
				}
			}
		}
		route {
			api_key_management {
				path /globex
				organization globex
				identity {
					organization acme
					user {http.auth.user.id}
				}
			}
		}`, bobsPassword))
	g.refused(g.send("POST", "/limited", `{"name":"x"}`, bob, asJSON), 403, "insufficient_scope", insufficient)
	g.refused(g.send("POST", "/globex", `{"name":"x"}`, bob, asJSON), 403, "organization_not_admitted", noChallenge)
	g.refused(g.send("GET", "/globex", "", bob), 403, "organization_not_admitted", noChallenge)
	if a := g.send("POST", "/accounts", `{"name":"x"}`, bob, asJSON); a.Status != 200 || a.text("serviceAccountId") != "bob" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

func TestManagementCanBeTheOperatorsAlone(t *testing.T) {
	g := start(t, "api_keys {\nmanagement operator\n}", signedIn("acme", "{http.auth.user.id}", ""))
	k := g.issue(writer)
	for _, call := range []string{"POST", "GET"} {
		for _, headers := range [][]string{{asJSON}, {asJSON, k.header()}, {asJSON, bob}, {asJSON, "X-Api-Key: " + k.Token}} {
			g.refused(g.send(call, "/v1/api-keys", `{"name":"x"}`, headers...), 403, "operator_only", noChallenge)
		}
	}
	g.refused(g.send("DELETE", "/v1/api-keys/"+k.ID, "", k.header()), 403, "operator_only", noChallenge)
	g.refused(g.send("GET", "/v1/api-keys/self", "", k.header()), 403, "operator_only", noChallenge)
	g.refused(g.send("GET", "/v1/api-keys/openapi.yaml", ""), 403, "operator_only", noChallenge)
	g.passed(g.send("GET", "/", "", k.header()))
	if a := g.operate("GET", "/api_keys/organizations/acme/keys", ""); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	g.revoke(k)
}

// A gate that only observes must not take out the key that the one behind it would
// refuse.
func TestARefusedKeyThatAnObservingGateLetPassStillDecides(t *testing.T) {
	g := start(t, ``, fmt.Sprintf(`
		basic_auth /v1/* {
			bob %s
		}
		route {
			api_key_auth {
				header X-API-Key
				observe
			}
			api_key_management {
				header X-API-Key
				identity {
					organization acme
					user {http.auth.user.id}
				}
			}
			reverse_proxy UPSTREAM
		}`, bobsPassword))
	revoked := g.issueRevoked()
	if a := g.send("POST", "/v1/api-keys", `{"name":"x"}`, bob, asJSON); a.Status != 200 || a.text("createdBy") != "bob" {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	g.refused(g.send("POST", "/v1/api-keys", `{"name":"x"}`, "X-Api-Key: "+revoked.Token, bob, asJSON), 401, "invalid_token", invalidToken)
}
