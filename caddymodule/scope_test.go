package caddymodule_test

import (
	"fmt"
	"net/http"
	"testing"
)

func TestReadKeysCannotWrite(t *testing.T) {
	g := start(t, allowHTTP2, site)
	read, write := g.issue(reader), g.issue(writer)
	insufficient := `Bearer realm="api", error="insufficient_scope"`
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		for _, k := range []key{read, write} {
			a := g.send(method, "/", "", k.header())
			if seen := g.upstream.take(); a.Status != 200 || len(seen) != 1 || seen[0].Method != method {
				t.Errorf("%s: %d, and the upstream received %v", method, a.Status, seen)
			}
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "MKCOL", "PURGE", "QUERY", "get", "Get", "X"} {
		g.refused(g.send(method, "/graphql", "", read.header()), 403, "insufficient_scope", insufficient)
		if got := g.passed(g.send(method, "/graphql", "", write.header())); got.Method != method {
			t.Errorf("%s reached the upstream as %s", method, got.Method)
		}
	}
	for name, lines := range map[string]string{
		"CONNECT":             "CONNECT example.com:443 HTTP/1.1\nHost: example.com:443\n",
		"WebSocket":           "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n",
		"some other upgrade":  "GET / HTTP/1.1\nHost: x\nConnection: upgrade\nupgrade: something\n",
		"upgrade of OPTIONS":  "OPTIONS / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: h2c\n",
		"upgrade to nothing":  "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade:\n",
		"two upgrade headers": "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade:\nUpgrade: websocket\n",
	} {
		t.Run(name, func(t *testing.T) {
			g := *g
			g.TB = t
			g.refused(g.raw(lines+read.header()+"\n\n"), 403, "insufficient_scope", insufficient)
			g.refused(g.raw(lines+"\n"), 401, "no_credential", plainBearer)
		})
	}
	if used := g.lookUp(read); used.text("lastUsedUserAgent") != "Go-http-client/1.1" {
		t.Errorf("the last accepted use is %v", used.Data)
	}
}

func TestMethodIsJudgedAsItIsSentOn(t *testing.T) {
	g := start(t, ``, `
		method /write/* DELETE
		method /read/* GET
		api_keys
		reverse_proxy UPSTREAM`)
	read := g.issue(reader)
	g.refused(g.send("GET", "/write/x", "", read.header()), 403, "insufficient_scope", `Bearer realm="api", error="insufficient_scope"`)
	if got := g.passed(g.send("POST", "/read/x", "", read.header())); got.Method != "GET" {
		t.Errorf("it reached the upstream as %s", got.Method)
	}
}

func TestPreflightAndOPTIONSStarDoNotReachTheUpstreamWithoutAKey(t *testing.T) {
	g := start(t, ``, site)
	g.refused(g.send("OPTIONS", "/", "", "Origin: https://example.com", "Access-Control-Request-Method: DELETE"), 401, "no_credential", plainBearer)
	g.raw("OPTIONS * HTTP/1.1\nHost: x\n\n")
	if seen := g.upstream.take(); len(seen) > 0 {
		t.Errorf("the upstream received %v", seen)
	}
}

// An upgraded connection carries both directions, and the upstream knows whose.
func TestUpgradesPassWithAReadWriteKey(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(writer)
	conn := g.dial()
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: X-User-Id, Upgrade, X-Api-Key-Id\r\nUpgrade: websocket\r\nX-User-Id: root\r\n%s\r\n\r\nhello", k.header())
	resp, err := http.ReadResponse(conn.Reader, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	echo := make([]byte, 5)
	if _, err := conn.Read(echo); err != nil || string(echo) != "hello" {
		t.Errorf("%q, %v", echo, err)
	}
	seen := g.upstream.take()
	if len(seen) != 1 || seen[0].Header.Get("X-User-Id") != "alice" || seen[0].Header.Get("X-Api-Key-Id") != k.ID || seen[0].Header.Get("Authorization") != "" {
		t.Errorf("the upstream received %v", seen)
	}
	// Caddy is stopped after this, and must have let go of the connection before:
	// it writes to those that it closes while they are still being copied to.
	conn.Close()
	g.awaitLog(func(line map[string]any) bool { return line["msg"] == "handled request" && line["status"] == 101.0 })
}
