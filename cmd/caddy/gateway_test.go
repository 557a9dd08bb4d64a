package main_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/management/traffic"
)

// plainSite is a gateway before the upstream. Caddy itself fills in {$...}.
const plainSite = `{
	admin {$ADMIN}
	debug
	grace_period 3s
	api_keys {
		per_key_metrics 1000
	}
}

http://127.0.0.1:{$PORT} {
	log
	api_keys
	reverse_proxy {$UPSTREAM}
}
`

// gateway is a Caddy process with a home of its own, before an upstream of its
// own. It can be stopped and started again.
type gateway struct {
	t        *testing.T
	home     string
	file     string // its Caddyfile
	admin    string // as --address takes it
	url      string
	env      []string
	upstream *upstream
	client   *http.Client // keeps connections
	operator *http.Client // reaches the admin endpoint

	process *exec.Cmd
	exited  chan struct{} // closed when the process has ended

	mu     sync.Mutex
	tokens []string // must be nowhere
}

// newGateway prepares a gateway that has not been started yet.
func newGateway(t *testing.T, caddyfile string) *gateway {
	t.Helper()
	// Not t.TempDir: the path of a socket is short.
	home, err := os.MkdirTemp("", "gateway-")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, home: home, file: filepath.Join(home, "Caddyfile"), upstream: newUpstream(t)}
	g.client = &http.Client{Transport: traffic.Record(t, &http.Transport{MaxIdleConnsPerHost: 100}), Timeout: patience}
	g.operator = &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if path, ok := strings.CutPrefix(g.admin, "unix/"); ok {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", g.admin)
		},
	}}
	g.listenAt("127.0.0.1:"+freePort(t), freePort(t))
	g.configure(caddyfile)
	t.Cleanup(func() {
		if g.process != nil {
			g.stop()
		}
		g.requireNoSecretIn(home)
		if t.Failed() {
			t.Logf("the end of its log:\n%s", lastLines(g.log(), 10))
		}
		os.RemoveAll(home)
	})
	return g
}

// startGateway returns a gateway that is ready.
func startGateway(t *testing.T, caddyfile string) *gateway {
	t.Helper()
	g := newGateway(t, caddyfile)
	g.start()
	return g
}

// listenAt chooses the addresses of a gateway that is not running.
func (g *gateway) listenAt(admin, port string) {
	g.admin, g.url = admin, "http://127.0.0.1:"+port
	g.env = append(os.Environ(),
		"HOME="+g.home, "XDG_DATA_HOME="+g.home+"/data", "XDG_CONFIG_HOME="+g.home+"/config",
		"PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"CADDY_ADMIN="+admin, // where commands look without --address
		"ADMIN="+admin, "PORT="+port, "UPSTREAM="+g.upstream.URL,
		"GORACE=halt_on_error=1",
	)
}

var portsTaken sync.Map

// freePort returns a port that nobody listens on. It is below those that the
// system gives to outgoing connections, so that it stays free over a restart.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := fmt.Sprint(10000 + rand.IntN(20000))
		if _, taken := portsTaken.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("found no free port")
	return ""
}

func (g *gateway) configure(caddyfile string) {
	g.t.Helper()
	if err := os.WriteFile(g.file, []byte(caddyfile), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// command is a Caddy command in the surroundings of the gateway.
func (g *gateway) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = g.home, g.env
	return cmd
}

// start starts the process and waits until it is ready.
func (g *gateway) start() {
	g.t.Helper()
	log, err := os.OpenFile(g.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	defer log.Close()
	g.process, g.exited = exec.Command(server, "run", "--config", g.file), make(chan struct{})
	g.process.Dir, g.process.Env = g.home, g.env
	g.process.Stdout, g.process.Stderr = log, log
	if err := g.process.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func(process *exec.Cmd, exited chan struct{}) {
		process.Wait()
		close(exited)
	}(g.process, g.exited)
	waitFor(g.t, "the gateway to be ready", func() bool {
		if g.hasExited() {
			g.t.Fatal("the gateway did not start")
		}
		status, _, err := g.ask(http.MethodGet, "/api_keys/ready", nil, "")
		return err == nil && status == http.StatusOK
	})
}

func (g *gateway) hasExited() bool {
	select {
	case <-g.exited:
		return true
	default:
		return false
	}
}

// stop asks the process to end, and waits until it has done so properly.
func (g *gateway) stop() {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	if code := g.process.ProcessState.ExitCode(); code != 0 {
		g.t.Errorf("the gateway stopped with exit code %d", code)
	}
	g.process = nil
}

// kill ends the process without a warning.
func (g *gateway) kill() {
	g.t.Helper()
	g.signal(syscall.SIGKILL)
	g.process = nil
}

func (g *gateway) signal(s syscall.Signal) {
	g.t.Helper()
	g.client.CloseIdleConnections()
	g.operator.CloseIdleConnections()
	if err := g.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		g.t.Fatal(err)
	}
	waitFor(g.t, "the gateway to end", g.hasExited)
}

// scripts is where scripts run; what they redirect to files is their business.
func (g *gateway) scripts() string { return filepath.Join(g.home, "scripts") }

func (g *gateway) store() string { return filepath.Join(g.home, "data", "caddy", "api-keys.db") }

func (g *gateway) logFile() string { return filepath.Join(g.home, "log") }

func (g *gateway) log() string {
	text, err := os.ReadFile(g.logFile())
	if err != nil {
		g.t.Error(err)
	}
	return string(text)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// here puts the addresses of the gateway into a text of the documentation.
func (g *gateway) here(text string) string {
	_, port, _ := strings.Cut(strings.TrimPrefix(g.url, "http://"), ":")
	return strings.NewReplacer(
		"localhost:8080", "127.0.0.1:"+port,
		":8080", "http://127.0.0.1:"+port,
		"localhost:3000", strings.TrimPrefix(g.upstream.URL, "http://"),
		"localhost:2019", g.admin,
	).Replace(text)
}
