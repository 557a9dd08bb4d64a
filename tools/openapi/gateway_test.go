package openapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const caddyfile = `{
	admin unix/{$HOME}/admin
	persist_config off
}

http://127.0.0.1:{$PORT} {
	bind 127.0.0.1
	api_keys
	respond "from the API"
}
`

// binary is Caddy with the plugin, as the main module has it now.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "caddy")
	if said, err := exec.Command("go", "build", "-C", "../..", "-o", binary, "./cmd/caddy").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s", err, said)
		return 1
	}
	return m.Run()
}

// gateway is the binary, running.
type gateway struct {
	t   *testing.T
	url string
	env []string
}

func startGateway(t *testing.T) *gateway {
	t.Helper()
	home, err := os.MkdirTemp("", "gateway-") // not t.TempDir: the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	port := freePort(t)
	g := &gateway{t: t, url: "http://127.0.0.1:" + port}
	g.env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home+"/data", "XDG_CONFIG_HOME="+home+"/config", "PORT="+port, "CADDY_ADMIN=unix/"+home+"/admin")
	if err := os.WriteFile(filepath.Join(home, "Caddyfile"), []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	server := exec.Command(binary, "run", "--config", filepath.Join(home, "Caddyfile"))
	server.Env, server.Stdout, server.Stderr = g.env, &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		server.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGTERM)
		<-exited
		if t.Failed() {
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			t.Logf("the end of its log:\n%s", strings.Join(lines[max(0, len(lines)-10):], "\n"))
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(g.url + "/v1/api-keys/openapi.yaml"); err == nil {
			resp.Body.Close()
			return g
		}
		select {
		case <-exited:
			t.Fatal("the gateway did not start")
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for the gateway")
		}
	}
}

// freePort returns a port below those that the system gives to outgoing
// connections.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := fmt.Sprint(10000 + rand.IntN(20000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("found no free port")
	return ""
}

// issue makes a key of acme as the operator and returns its token.
func (g *gateway) issue(user, scope string) string {
	g.t.Helper()
	cmd := exec.Command(binary, "api-keys", "create", "--organization", "acme", "--user", user, "--name", "first", "--scope", scope, "--json")
	var said bytes.Buffer
	cmd.Env, cmd.Stderr = g.env, &said
	out, err := cmd.Output()
	var made struct{ Key string }
	if err != nil || json.Unmarshal(out, &made) != nil || made.Key == "" {
		g.t.Fatalf("making a key: %v, %s", err, &said)
	}
	return made.Key
}

// judged is a client whose every exchange is held against the document.
type judged struct {
	*document
	t *testing.T
}

// Do implements client.HttpRequestDoer.
func (j judged) Do(req *http.Request) (*http.Response, error) {
	e := exchange{Test: j.t.Name()}
	if req.Body != nil {
		var err error
		if e.Request.Body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(e.Request.Body))
	}
	e.Request.Method, e.Request.URL, e.Request.Header = req.Method, req.URL.RequestURI(), req.Header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if e.Answer.Body, err = io.ReadAll(resp.Body); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(e.Answer.Body))
	e.Answer.Status, e.Answer.Header = resp.StatusCode, resp.Header
	if err := j.check(&e); err != nil {
		j.t.Errorf("%v\n%v", &e, err)
	}
	return resp, nil
}

// send sends a request with a body that need not be as documented.
func (j judged) send(ctx context.Context, method, url, token, body string, headers ...string) (status int, answer []byte, header http.Header) {
	j.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		j.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := j.Do(req)
	if err != nil {
		j.t.Fatal(err)
	}
	answer, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, resp.Header
}
