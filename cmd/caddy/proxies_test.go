package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// proxyExample returns the first example in docs/proxies.md that holds a text.
func proxyExample(t *testing.T, text string) string {
	t.Helper()
	for _, f := range documentation(t) {
		if f.file == "docs/proxies.md" && strings.Contains(f.text, text) {
			return f.text
		}
	}
	t.Fatalf("docs/proxies.md has no example with %q", text)
	return ""
}

// startAsked starts a gateway that answers the subrequests of proxies, as an
// example of the documentation says.
func startAsked(t *testing.T, example string) *gateway {
	t.Helper()
	return startGateway(t, strings.NewReplacer("\tservers {", "\tadmin {$ADMIN}\n\tservers {", ":9180", ":{$PORT}").Replace(example))
}

// behind puts a proxy in front of a gateway: what the gateway is sent from now on
// goes to it. example is its configuration in the documentation, run makes the
// command out of it.
func (g *gateway) behind(example string, run func(config string) *exec.Cmd) {
	g.t.Helper()
	port := freePort(g.t)
	cmd := run(strings.NewReplacer("127.0.0.1:9180", strings.TrimPrefix(g.url, "http://"), "8080", port,
		"localhost:3000", strings.TrimPrefix(g.upstream.URL, "http://")).Replace(example))
	log := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if g.t.Failed() {
			g.t.Logf("the end of the log of the proxy:\n%s", lastLines(log.String(), 10))
		}
	})
	waitFor(g.t, "the proxy", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	g.url = "http://127.0.0.1:" + port
}

// sendAs sends a request for another host with headers, "Name: value".
func (g *gateway) sendAs(method, path string, headers ...string) answer {
	g.t.Helper()
	return g.do(method, path, "a body", append(headers[:len(headers):len(headers)], "Host: api.example.com")...)
}

var identityHeaders = []string{"X-Api-Key-Id", "X-Organization-Id", "X-User-Id", "X-Service-Account-Id", "X-Api-Key-Scope"}

// requireGuarded checks what a gateway must do behind any proxy.
func (g *gateway) requireGuarded() {
	g.t.Helper()
	read, write := g.issue(nil), g.issue(map[string]string{"scope": "read-write"})
	reader, writer := "Authorization: Bearer "+read["key"], "Authorization: Bearer "+write["key"]
	forged := []string{"X-Forwarded-For: 192.0.2.66", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /search", "X-HTTP-Method-Override: DELETE",
		"X-Http-Method: DELETE", "X-Method-Override: DELETE", "Proxy: http://192.0.2.66", "x_user_id: root",
		"Connection: X-Forwarded-Method, X-Forwarded-Uri, x-api-key-id, X-User-Id, X-Organization-Id"}
	for _, name := range identityHeaders {
		forged = append(forged, name+": forged", strings.ToLower(name)+": forged")
	}
	for _, row := range []struct {
		name, method string
		headers      []string
		status       int
		challenge    string
		key          map[string]string
	}{
		{"read", "GET", []string{reader}, 200, "", read},
		{"write with a read-write key", "POST", []string{writer}, 200, "", write},
		{"write with a read key", "POST", []string{reader}, 403, "", nil},
		{"DELETE with a read key", "DELETE", []string{reader}, 403, "", nil},
		{"upgrade with a read key", "GET", []string{reader, "Connection: Upgrade", "Upgrade: websocket"}, 403, "", nil},
		{"upgrade with a read-write key", "GET", []string{writer, "Connection: Upgrade", "Upgrade: websocket"}, 200, "", write},
		{"no key", "GET", nil, 401, `Bearer realm="api"`, nil},
		{"no key at all and a write", "POST", nil, 401, `Bearer realm="api"`, nil},
		{"two keys", "GET", []string{reader, writer}, 401, `Bearer realm="api", error="invalid_request"`, nil},
		{"unknown key", "GET", []string{"Authorization: Bearer x"}, 401, `Bearer realm="api", error="invalid_token"`, nil},
	} {
		for _, more := range [][]string{nil, forged} {
			name := row.name
			if more != nil {
				name += ", with forged headers"
			}
			g.upstream.seen()
			a := g.sendAs(row.method, "/things?x=/search", append(more[:len(more):len(more)], row.headers...)...)
			seen := g.upstream.seen()
			// nginx finds two credentials bad by itself.
			if a.status != row.status && (row.name != "two keys" || a.status != 400) {
				g.t.Errorf("%s: HTTP %d, want %d: %s", name, a.status, row.status, a.body)
			}
			if got := a.header.Get("Www-Authenticate"); a.status == row.status && row.challenge != "" && got != row.challenge {
				g.t.Errorf("%s: WWW-Authenticate is %q, want %q", name, got, row.challenge)
			}
			if row.status != 200 {
				if len(seen) != 0 {
					g.t.Errorf("%s: the upstream received %s %v", name, seen[0].Method, seen[0].Header)
				}
				continue
			}
			if len(seen) != 1 {
				g.t.Errorf("%s: the upstream received %d requests", name, len(seen))
				continue
			}
			g.requireIdentity(name, seen[0], row.key)
			if seen[0].Method != row.method || seen[0].RequestURI != "/things?x=/search" {
				g.t.Errorf("%s: the upstream received %s %s", name, seen[0].Method, seen[0].RequestURI)
			}
		}
	}
	if used := g.look(read["id"]); used["lastUsedIp"] != "127.0.0.1" || used["lastUsedUserAgent"] != "Go-http-client/1.1" {
		g.t.Errorf("the use of the key is recorded as %v", used)
	}
	if status, body, err := g.ask(http.MethodDelete, "/api_keys/keys/"+read["id"], nil, ""); err != nil || status != 200 {
		g.t.Fatalf("revoking: %v, HTTP %d, %s", err, status, body)
	}
	if a := g.sendAs("GET", "/", reader); a.status != 401 || len(g.upstream.seen()) != 0 {
		g.t.Errorf("a revoked key: HTTP %d %s", a.status, a.body)
	}
	if a := g.sendAs("GET", "/_gate", writer, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"); a.status == 204 {
		g.t.Error("the gate can be asked from outside")
	}
	g.upstream.seen()
	g.stop()
	if a := g.sendAs("GET", "/", writer); a.status != 502 && a.status != 503 || len(g.upstream.seen()) != 0 {
		g.t.Errorf("without the gate: HTTP %d %s", a.status, a.body)
	}
}

// requireIdentity checks what the upstream was told.
func (g *gateway) requireIdentity(name string, seen *http.Request, key map[string]string) {
	g.t.Helper()
	want := map[string]string{"X-Api-Key-Id": key["id"], "X-Organization-Id": "acme", "X-User-Id": "alice", "X-Api-Key-Scope": key["scope"]}
	for _, header := range identityHeaders {
		if got := strings.Join(seen.Header[header], ";"); got != want[header] {
			g.t.Errorf("%s: the upstream received %s %q, want %q", name, header, got, want[header])
		}
	}
	for _, header := range []string{"Authorization", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "Proxy", "X_user_id"} {
		if seen.Header[header] != nil {
			g.t.Errorf("%s: the upstream received %s", name, header)
		}
	}
	if text := fmt.Sprint(seen.Header); strings.Contains(text, "forged") || strings.Contains(text, "root") {
		g.t.Errorf("%s: the upstream received %s", name, text)
	}
}

func TestBehindCaddyTheGateGuardsAsDocumented(t *testing.T) {
	g := startAsked(t, proxyExample(t, "subrequest"))
	g.behind(proxyExample(t, "forward_auth"), func(config string) *exec.Cmd {
		file := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(file, []byte("{\n\tadmin off\n\tpersist_config off\n}\n"+config), 0o600); err != nil {
			t.Fatal(err)
		}
		return g.command("run", "--config", file)
	})
	g.requireGuarded()
}

// The test asks as Envoy does.
func TestTheSiteThatEnvoyAsksAnswersAsDocumented(t *testing.T) {
	g := startAsked(t, proxyExample(t, "replace_status"))
	read := g.issue(nil)
	reader := "Authorization: Bearer " + read["key"]
	for _, row := range []struct {
		name, method string
		headers      []string
		status       int
	}{
		{"read", "GET", []string{reader}, 200},
		{"read with a forged method", "GET", []string{reader, "X-Forwarded-Method: POST"}, 200},
		{"write with a forged method", "POST", []string{reader, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"}, 403},
		{"upgrade", "GET", []string{reader, "Upgrade: websocket"}, 403},
		{"no key", "GET", nil, 401},
	} {
		a := g.sendAs(row.method, "/v1/api-keys", row.headers...)
		if a.status != row.status || len(a.body) != 0 {
			t.Errorf("%s: HTTP %d %q, want %d", row.name, a.status, a.body, row.status)
		}
		if row.status == 200 && (a.header.Get("X-Api-Key-Id") != read["id"] || a.header["X-Service-Account-Id"] == nil) {
			t.Errorf("%s: answered %v", row.name, a.header)
		}
	}
}

func TestTheSiteThatTraefikAsksAnswersAsDocumented(t *testing.T) {
	g := startAsked(t, proxyExample(t, "require_scope"))
	for scope, status := range map[string]int{"read": 403, "read-write": 204} {
		key := "Authorization: Bearer " + g.issue(map[string]string{"scope": scope})["key"]
		asked := []string{key, "X-Forwarded-Method: GET", "X-Forwarded-Uri: /socket"}
		if a := g.sendAs("GET", "/", asked...); a.status != 204 {
			t.Errorf("%s: HTTP %d", scope, a.status)
		}
		if a := g.sendAs("GET", "/upgrades", asked...); a.status != status {
			t.Errorf("upgrade with a %s key: HTTP %d, want %d", scope, a.status, status)
		}
	}
}
