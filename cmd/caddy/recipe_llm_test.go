package main_test

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnLLMServerGetsAKeyForEachUser(t *testing.T) {
	page := openRecipe(t, "llm.md")
	model := newModelServer(t)
	g := newGateway(t, plainSite)
	caddyfile := page.next("caddyfile")
	g.configure(g.here(strings.ReplaceAll(caddyfile, "localhost:11434", model.address())))
	g.start()
	token := aToken.FindString(g.follow(page.next("sh")))
	base, _, _ := strings.Cut(strings.TrimPrefix(g.here(page.next("text")), "OPENAI_BASE_URL="), "\n")

	for _, row := range []struct {
		name, method, url, token string
		status                   int
	}{
		{"talk without a key", "POST", base + "/chat/completions", "", 401},
		{"list the models", "GET", base + "/models", token, 200},
		{"pull a model", "POST", g.url + "/api/pull", token, 403},
		{"delete a model", "DELETE", g.url + "/api/delete", token, 403},
	} {
		resp := g.askModel(row.method, row.url, row.token)
		resp.Body.Close()
		if resp.StatusCode != row.status {
			t.Errorf("%s: HTTP %d, want %d", row.name, resp.StatusCode, row.status)
		}
	}

	// Both dialects stream, and end when the key does.
	var streams []*http.Response
	for _, url := range []string{base + "/chat/completions", g.url + "/api/chat"} {
		resp := g.askModel("POST", url, token)
		defer resp.Body.Close()
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != "a word\n" {
			t.Fatalf("%s: HTTP %d, %q, %v", url, resp.StatusCode, line, err)
		}
		streams = append(streams, resp)
	}
	verified, _, _ := g.shell("echo " + token + " | caddy api-keys verify --json")
	id := verified[strings.Index(verified, "key_"):]
	g.follow("caddy api-keys revoke " + id[:strings.Index(id, `"`)])
	waitFor(t, "the model server to be told that nobody listens", func() bool { return model.cancelled.Load() == int64(len(streams)) })
	for _, resp := range streams {
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("the client takes what it got for a whole answer")
		}
	}

	// A server with a key of its own gets that one, and nobody's.
	secret := filepath.Join(g.home, "llm-key")
	if err := os.WriteFile(secret, []byte("sk-server\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	caddyfile = page.next("caddyfile")
	g.configure(g.here(strings.NewReplacer("localhost:8000", model.address(), "/etc/caddy/llm-key", secret).Replace(caddyfile)))
	g.follow("caddy reload --config /etc/caddy/Caddyfile")
	token = g.issue(nil)["key"]
	model.credential.Store("Bearer sk-server")
	resp := g.askModel("GET", base+"/models", token)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("a server with a key of its own: HTTP %d", resp.StatusCode)
	}
}

// modelServer streams words until nobody listens any more, as a model that is
// asked for a long story. One without a credential wants to be called by its own
// name, as Ollama does.
type modelServer struct {
	*httptest.Server
	credential atomic.Value // it must be called with
	cancelled  atomic.Int64 // streams
}

func newModelServer(t *testing.T) *modelServer {
	m := new(modelServer)
	m.credential.Store("")
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		want := m.credential.Load()
		if r.Header.Get("Authorization") != want || want == "" && r.Host != m.address() {
			t.Errorf("the model server is called %q with %q", r.Host, r.Header["Authorization"])
		}
		switch r.URL.Path {
		case "/v1/chat/completions":
			w.Header().Set("Content-Type", "text/event-stream")
		case "/api/chat":
			w.Header().Set("Content-Type", "application/x-ndjson")
		default:
			return
		}
		for word := time.Tick(10 * time.Millisecond); ; {
			io.WriteString(w, "a word\n")
			w.(http.Flusher).Flush()
			select {
			case <-word:
			case <-r.Context().Done():
				m.cancelled.Add(1)
				return
			}
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *modelServer) address() string { return m.Listener.Addr().String() }

func (g *gateway) askModel(method, url, token string) *http.Response {
	g.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(`{"stream":true}`))
	if err != nil {
		g.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp
}
