package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const page = "../../docs/recipes/rate-limits.md"

// limit is that of the page.
const limit = 100

func TestOnlyTheKeyThatIsOverItsLimitIsRefused(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)\n```caddyfile ratelimit\n(.*?)```\n").FindSubmatch(text)
	if example == nil {
		t.Fatalf("%s has no Caddyfile", page)
	}
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer upstream.Close()
	port := freePort(t)
	g := start(t, strings.NewReplacer(":8080", "http://127.0.0.1:"+port, "localhost:3000", upstream.Listener.Addr().String()).
		Replace(string(example[1])))
	site := "http://127.0.0.1:" + port
	busy, calm := g.createKey(), g.createKey()

	for range limit {
		if resp := get(t, site+"/", busy); resp.StatusCode != 200 {
			t.Fatalf("within the limit: HTTP %d", resp.StatusCode)
		}
	}
	for _, row := range []struct {
		name, path, token string
		status            int
	}{
		{"over the limit", "/", busy, 429},
		{"another key", "/", calm, 200},
		{"no key", "/", "", 401},
		{"management", "/v1/api-keys/self", busy, 200},
	} {
		resp := get(t, site+row.path, row.token)
		if resp.StatusCode != row.status || (row.status == 429) != (resp.Header.Get("Retry-After") != "") {
			t.Errorf("%s: HTTP %d, want %d; Retry-After %q", row.name, resp.StatusCode, row.status, resp.Header.Get("Retry-After"))
		}
	}
}

func TestThePageNamesTheVersionsThatAreTested(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"github.com/mholt/caddy-ratelimit", "github.com/caddyserver/caddy/v2"} {
		version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSpace(strings.TrimPrefix(string(version), "v")); !strings.Contains(string(text), want) {
			t.Errorf("%s does not say that %s is %s", page, module, want)
		}
	}
}

// gateway is a Caddy of this folder with a home of its own.
type gateway struct {
	t      *testing.T
	binary string
	env    []string
}

func start(t *testing.T, caddyfile string) *gateway {
	t.Helper()
	home := t.TempDir()
	g := &gateway{t: t, binary: filepath.Join(home, "bin", "caddy")}
	if output, err := exec.Command("go", "build", "-o", g.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	file := filepath.Join(home, "Caddyfile")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := "127.0.0.1:" + freePort(t)
	g.env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home, "CADDY_ADMIN="+admin)
	log := new(strings.Builder)
	server := exec.Command(g.binary, "run", "--config", file)
	server.Env, server.Stdout, server.Stderr = g.env, log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGTERM)
		server.Wait()
		if t.Failed() {
			t.Logf("its log:\n%s", log)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + admin + "/api_keys/ready")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return g
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("waited in vain for the gateway")
		}
	}
}

// createKey returns the token of a new key.
func (g *gateway) createKey() string {
	g.t.Helper()
	cmd := exec.Command(g.binary, "api-keys", "create", "--organization", "acme", "--user", "alice", "--name", "test", "--json")
	cmd.Env = g.env
	output, err := cmd.Output()
	if err != nil {
		g.t.Fatal(err)
	}
	var data struct{ Key string }
	if err := json.Unmarshal(output, &data); err != nil {
		g.t.Fatal(err)
	}
	return data.Key
}

func get(t *testing.T, url, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp
}

// freePort returns a port that nobody listens on, below those that the system
// gives to outgoing connections.
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
