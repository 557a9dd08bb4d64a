package main_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who changed what, from where and in which call is a line in the log and an
// event, and nothing is told of calls that change nothing.
func TestEveryChangeIsALineInTheAuditLogAndAnEvent(t *testing.T) {
	g := startGateway(t, plainSite)
	caller := g.issueIn("acme", "alice")
	type change struct {
		log, event, id string
		more           map[string]any
	}
	operator := map[string]any{"by": "operator"}
	changes := []change{{"api key issued", "api_key_created", caller["id"], operator}}
	requests := make(map[int]string) // the ids of the calls
	call := func(log, event, id, method, path, body string) map[string]string {
		t.Helper()
		a := g.do(method, "/v1/api-keys"+path, body, bearer(caller), asJSON)
		key := g.requireKey(a)
		if id == "" {
			id = key["id"]
		}
		requests[len(changes)] = decode(t, a.body).RequestID
		more := map[string]any{"by": "alice", "by_api_key_id": caller["id"], "client_ip": "127.0.0.1"}
		if event == "api_key_rotated" {
			more["replaced_by"] = key["id"]
		}
		changes = append(changes, change{log, event, id, more})
		return key
	}
	key := call("api key issued", "api_key_created", "", "POST", "", `{"name":"x"}`)
	call("api key updated", "api_key_updated", "", "PATCH", "/"+key["id"], `{"name":"y"}`)
	next := call("api key rotated", "api_key_rotated", key["id"], "POST", "/"+key["id"]+"/rotate", `{}`)
	call("api key revoked", "api_key_revoked", "", "DELETE", "/"+next["id"], "")
	// These change nothing.
	g.do("DELETE", "/v1/api-keys/"+next["id"], "", bearer(caller))
	g.do("PATCH", "/v1/api-keys/"+key["id"], `{"name":"y"}`, bearer(caller), asJSON)
	g.do("POST", "/v1/api-keys", `{}`, bearer(caller), asJSON)
	g.do("POST", "/v1/api-keys/"+key["id"]+"/rotate", `{}`, bearer(caller), asJSON)
	// The operator does the rest.
	header := http.Header{"Content-Type": {"application/json"}}
	status, body, err := g.ask("POST", "/api_keys/organizations/acme/keys/revoke", header, fmt.Sprintf(`{"mintedBy":%q}`, caller["id"]))
	if err != nil || status != 200 || !strings.Contains(string(body), `"revoked":1`) {
		t.Errorf("HTTP %d, %v, %s", status, err, body)
	}
	changes = append(changes, change{"api key revoked", "api_key_revoked", key["id"], operator})
	token := "legacy-token-of-somebody-else"
	status, body, err = g.ask("POST", "/api_keys/import", http.Header{"Content-Type": {"application/x-ndjson"}},
		fmt.Sprintf(`{"hash":"%x","algorithm":"sha256","name":"legacy","organizationId":"acme","userId":"carol"}`, sha256.Sum256([]byte(token))))
	if err != nil || status != 200 {
		t.Errorf("HTTP %d, %v, %s", status, err, body)
	}
	changes = append(changes, change{"api key imported", "api_key_imported", g.exported()["legacy"]["id"], operator})

	var lines, events []map[string]any
	for line := range strings.Lines(g.log()) {
		var said map[string]any
		if json.Unmarshal([]byte(line), &said) != nil {
			continue
		}
		name, _ := said["name"].(string)
		switch {
		case said["logger"] == "api_keys.audit":
			lines = append(lines, said)
		case said["logger"] == "events" && strings.HasPrefix(name, "api_key_"):
			events = append(events, said)
		}
	}
	if len(lines) != len(changes) || len(events) != len(changes) {
		t.Fatalf("%d changes, %d lines and %d events: %v", len(changes), len(lines), len(events), lines)
	}
	for i, c := range changes {
		data, _ := events[i]["data"].(map[string]any)
		if lines[i]["msg"] != c.log || lines[i]["level"] != "info" || events[i]["name"] != c.event {
			t.Errorf("%s is told as %v and %v", c.log, lines[i], events[i])
		}
		for _, said := range []map[string]any{lines[i], data} {
			if said["api_key_id"] != c.id || said["organization_id"] != "acme" {
				t.Errorf("%s: told of %v of %v, want %s", c.log, said["api_key_id"], said["organization_id"], c.id)
			}
			for name, want := range c.more {
				if said[name] != want {
					t.Errorf("%s: %s is %v, want %v", c.log, name, said[name], want)
				}
			}
			if want := requests[i]; want != "" && said["request_id"] != want {
				t.Errorf("%s: request_id is %v, want %s", c.log, said["request_id"], want)
			}
		}
	}
}

// exported returns the lines of an export with hashes, by the name of the key.
func (g *gateway) exported() map[string]map[string]string {
	g.t.Helper()
	stdout, stderr, code := g.run(g.command("api-keys", "export", "--with-hashes"))
	if code != 0 {
		g.t.Fatal(stderr)
	}
	all := make(map[string]map[string]string)
	for line := range strings.Lines(stdout) {
		key := make(map[string]string)
		if err := json.Unmarshal([]byte(line), &key); err != nil {
			g.t.Fatalf("%v: %s", err, line)
		}
		all[key["name"]] = key
	}
	return all
}

func TestKeysThatWereMadeElsewhereWorkByTheirHashesAndGetOurs(t *testing.T) {
	const secret, pepper = "the secret of the old gateway", "a pepper of our own, new here"
	g := newGateway(t, under("import_secret legacy {env.LEGACY}", "pepper {env.PEPPER}"))
	g.env = append(g.env, "LEGACY="+secret, "PEPPER="+pepper)
	g.start()
	mac := func(token string) []byte {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(token))
		return h.Sum(nil)
	}
	tokens := map[string]string{"sha256": "sk_live_0123456789abcdef", "sha512": "~!@#$%^&*()_+|", "hmac-sha256": strings.Repeat("x", 512), "short": "7"}
	var file strings.Builder
	for _, row := range []struct {
		name, algorithm, more string
		hash                  []byte
	}{
		{"sha256", "sha256", `,"scope":"read-write"`, func() []byte { h := sha256.Sum256([]byte(tokens["sha256"])); return h[:] }()},
		{"sha512", "sha512", `,"serviceAccountId":"robot"`, func() []byte { h := sha512.Sum512([]byte(tokens["sha512"])); return h[:] }()},
		{"hmac-sha256", "hmac-sha256", `,"secret":"legacy"`, mac(tokens["hmac-sha256"])},
		{"short", "sha256", ``, func() []byte { h := sha256.Sum256([]byte(tokens["short"])); return h[:] }()},
	} {
		owner := `,"userId":"carol"`
		if strings.Contains(row.more, "serviceAccountId") {
			owner = ""
		}
		fmt.Fprintf(&file, `{"hash":"%x","algorithm":%q,"name":%q,"organizationId":"acme"%s%s}`+"\n", row.hash, row.algorithm, row.name, owner, row.more)
	}
	if err := os.WriteFile(filepath.Join(g.home, "lines"), []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := g.run(g.command("api-keys", "import", "lines", "--json"))
	if code != 0 || !strings.Contains(stdout, `"imported": 4`) {
		t.Fatalf("exit code %d, %s%s", code, stdout, stderr)
	}
	before := g.exported()
	for name, token := range tokens {
		want := 403
		if name == "sha256" {
			want = 200
		}
		g.requireStatus(200, "GET", "/"+name, token)
		g.requireStatus(want, "POST", "/"+name, token)
		g.requireStatus(401, "GET", "/"+name, token+"x")
	}
	for _, r := range g.upstream.seen() {
		if name := strings.Trim(r.URL.Path, "/"); r.Header.Get("X-Api-Key-Id") != before[name]["id"] || r.Header.Get("X-Organization-Id") != "acme" {
			t.Errorf("%s is %v at the upstream", name, r.Header)
		}
	}
	waitFor(t, "our own digests", func() bool {
		after := g.exported()
		for name := range tokens {
			if after[name]["hash"] == before[name]["hash"] || after[name]["pepper"] == "" {
				return false
			}
		}
		return true
	})
	// They need no secret of anybody else from now on.
	g.configure(under("pepper {env.PEPPER}"))
	g.stop()
	g.start()
	for name, token := range tokens {
		g.requireStatus(200, "GET", "/"+name, token)
	}
	g.run(g.command("api-keys", "revoke", before["short"]["id"]))
	g.requireStatus(401, "GET", "/", tokens["short"])
	stored, err := os.ReadFile(g.store())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{tokens["sha256"], tokens["hmac-sha256"][:100], secret, pepper} {
		if strings.Contains(string(stored), part) || strings.Contains(g.log(), part) || strings.Contains(g.get("/config/"), part) {
			t.Errorf("%q is kept", part)
		}
	}
	if len(before) != len(tokens) {
		t.Errorf("%d keys were imported", len(before))
	}
}
