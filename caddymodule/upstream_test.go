package caddymodule_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// upstream records what reaches it. To an upgrade it answers 101 and then sends
// back what it is sent.
type upstream struct {
	*httptest.Server

	mu   sync.Mutex
	seen []received
	// holding keeps requests for /hold until letGo is called.
	holding context.Context
	letGo   context.CancelFunc
}

type received struct {
	Method, URI     string
	Header, Trailer http.Header
	Body            string
}

func newUpstream(t testing.TB) *upstream {
	u := new(upstream)
	u.holding, u.letGo = context.WithCancel(context.Background())
	u.Server = httptest.NewServer(u)
	t.Cleanup(func() {
		u.letGo()
		u.Close()
	})
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	u.seen = append(u.seen, received{r.Method, r.RequestURI, r.Header, r.Trailer, string(body)})
	u.mu.Unlock()
	if r.URL.Path == "/hold" {
		<-u.holding.Done()
	}
	if r.Header.Get("Upgrade") == "" {
		io.WriteString(w, "from the upstream")
		return
	}
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(conn, both)
}

// take returns what was received since it was last called.
func (u *upstream) take() []received {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

// passed checks that a request reached the upstream, and returns it as it did.
func (g *gateway) passed(a answer) received {
	g.Helper()
	seen := g.upstream.take()
	if a.Status != 200 || a.Text != "from the upstream" || len(seen) != 1 {
		g.Errorf("got %d %s, and the upstream received %v", a.Status, a.Text, seen)
		return received{}
	}
	return seen[0]
}

// refused checks everything that all refusals have in common, and that the
// upstream has received nothing.
func (g *gateway) refused(a answer, status int, reason, challenge string) {
	g.Helper()
	if a.Status != status || a.reason() != reason {
		g.Errorf("got %d %s, want %d with the reason %s", a.Status, a.Text, status, reason)
		return
	}
	if got := strings.Join(a.Header["Www-Authenticate"], "; "); got != challenge {
		g.Errorf("WWW-Authenticate is %q, want %q", got, challenge)
	}
	if a.Code != status || a.Message == "" || a.RequestID == "" || len(a.Data) != 1 {
		g.Errorf("the envelope is %s", a.Text)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Authorization",
		"Content-Length": fmt.Sprint(len(a.Text)),
	} {
		if got := a.Header.Get(name); got != want {
			g.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if strings.Contains(a.Text+fmt.Sprint(a.Header), "ak_") {
		g.Errorf("the answer repeats a token: %s", a.Text)
	}
	if seen := g.upstream.take(); len(seen) > 0 {
		g.Errorf("the upstream received %v", seen)
	}
}

const (
	noChallenge  = ""
	plainBearer  = `Bearer realm="api"`
	invalidToken = `Bearer realm="api", error="invalid_token"`
)
