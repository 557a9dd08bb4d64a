package caddymodule_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/forwardauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"
	_ "github.com/caddyserver/caddy/v2/modules/metrics"
	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
	"github.com/caddy-apikeys/caddy-apikeys/management/traffic"
	_ "github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// gateway is a Caddy in this process with one site in front of an upstream. There
// is one at a time, so that no test here is parallel.
type gateway struct {
	testing.TB
	dir         string // all that it writes is below
	site, admin string // host:port
	upstream    *upstream
	client      *http.Client // of the site
}

// start runs a Caddy whose Caddyfile has these global options and this site
// block; UPSTREAM and DIR stand for the upstream and for the directory of the
// test. The key store is at DIR/caddy/api-keys.db.
func start(t testing.TB, global, site string) *gateway {
	t.Helper()
	g := &gateway{TB: t, dir: t.TempDir(), site: freeAddress(t), admin: freeAddress(t), upstream: newUpstream(t)}
	t.Setenv("XDG_DATA_HOME", g.dir)
	g.client = newClient(t, new(http.Transport))
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := g.load(global, site); err != nil {
		t.Fatal(err)
	}
	return g
}

func newClient(t testing.TB, transport *http.Transport) *http.Client {
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     traffic.Record(t, transport),
		Timeout:       time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

const allowHTTP2 = `
	servers {
		protocols h1 h2c
	}
`

// overHTTP2 makes the client speak HTTP/2 without TLS.
func (g *gateway) overHTTP2() {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	g.client = newClient(g, &http.Transport{Protocols: protocols})
}

var addressesTaken = make(map[string]bool)

// freeAddress returns an address that nobody listens at, and no address twice. It
// keeps away from the ports that the system gives to connections, and from those
// that the tests of cmd/caddy choose from at the same time.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 3000+rand.IntN(7000))
		if addressesTaken[address] {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			addressesTaken[address] = true
			l.Close()
			return address
		}
	}
	t.Fatal("found no free address")
	return ""
}

// config returns the JSON configuration for start and load.
func (g *gateway) config(global, site string) ([]byte, error) {
	text := strings.NewReplacer("GLOBAL", global, "BLOCK", site).Replace(`{
		admin ADMIN
		persist_config off
		auto_https off
		storage file_system DIR/caddy
		log {
			output file DIR/log
			level DEBUG
		}
		GLOBAL
	}
	http://SITE {
		bind 127.0.0.1
		log
		BLOCK
	}`)
	text = strings.NewReplacer("ADMIN", g.admin, "SITE", g.site[strings.LastIndexByte(g.site, ':'):], "DIR", g.dir, "UPSTREAM", g.upstream.Listener.Addr().String()).Replace(text)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	return config, err
}

// load loads another configuration, as `caddy reload --force` does.
func (g *gateway) load(global, site string) error {
	config, err := g.config(global, site)
	if err != nil {
		return err
	}
	return g.loadJSON(config)
}

// loadJSON loads a configuration and waits, where Linux tells, until no other takes
// connections: Caddy has a socket for each, and does not wait until that of the last
// one is closed.
func (g *gateway) loadJSON(config []byte) error {
	g.Helper()
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	port := netip.MustParseAddrPort(g.site).Port()
	listening := regexp.MustCompile(fmt.Sprintf(`:%04X 0+:0000 0A`, port))
	g.await("one socket to listen", func() bool {
		sockets, _ := os.ReadFile("/proc/net/tcp")
		return len(listening.FindAll(sockets, -1)) <= 1
	})
	return nil
}

func stop(t testing.TB) {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
}

// running returns the keys of the configuration that is in force.
func running(t testing.TB) *apikey.Keyring {
	t.Helper()
	app, err := caddy.ActiveContext().App("api_keys")
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := app.(*caddymodule.App).Keyring()
	if err != nil {
		t.Fatal(err)
	}
	return keyring
}

func (g *gateway) storePath() string { return filepath.Join(g.dir, "caddy", "api-keys.db") }

// mustBeFree checks that nobody holds a key store open.
func mustBeFree(t testing.TB, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// answer is a response and, where the body is one, the envelope in it.
type answer struct {
	Status int
	Header http.Header
	Text   string

	Code      int
	Data      map[string]any
	Message   string
	RequestID string
}

func (a answer) reason() string { return a.text("reason") }

func (a answer) text(field string) string {
	text, _ := a.Data[field].(string)
	return text
}

// send sends a request to the site. Headers are given as "Name: value", and
// their names are sent as they are written.
func (g *gateway) send(method, uri, body string, headers ...string) answer {
	g.Helper()
	return exchange(g, g.client, method, "http://"+g.site+uri, body, headers...)
}

// operate sends a request to the admin endpoint.
func (g *gateway) operate(method, uri, body string, headers ...string) answer {
	g.Helper()
	return exchange(g, newClient(g, new(http.Transport)), method, "http://"+g.admin+uri, body, headers...)
}

func exchange(t testing.TB, client *http.Client, method, url, body string, headers ...string) answer {
	t.Helper()
	return read(t, persist(t, func() (*http.Response, error) {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			req.Header[name] = append(req.Header[name], value)
		}
		return client.Do(req)
	}))
}

// persist tries again what may have failed because of a reload: the server that
// stops lets go of connections of which it has not read a request.
func persist[T any](t testing.TB, try func() (T, error)) T {
	t.Helper()
	for left := 20; ; left-- {
		got, err := try()
		if err == nil {
			return got
		}
		if left == 0 {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// connection is one to the site, for what no client would send.
type connection struct {
	net.Conn
	*bufio.Reader
}

func (c connection) Read(p []byte) (int, error) { return c.Reader.Read(p) }

func (g *gateway) dial() connection {
	g.Helper()
	conn := persist(g, func() (net.Conn, error) { return net.Dial("tcp", g.site) })
	g.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return connection{conn, bufio.NewReader(conn)}
}

// raw sends lines over a connection of its own and returns the first answer.
func (g *gateway) raw(lines string) answer {
	g.Helper()
	return read(g, persist(g, func() (*http.Response, error) {
		conn := g.dial()
		if _, err := io.WriteString(conn, strings.ReplaceAll(lines, "\n", "\r\n")); err != nil {
			return nil, err
		}
		return http.ReadResponse(conn.Reader, nil)
	}))
}

func read(t testing.TB, resp *http.Response) answer {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{Status: resp.StatusCode, Header: resp.Header, Text: string(body)}
	json.Unmarshal(body, &a)
	return a
}

// logged returns the lines that Caddy has logged until now.
func (g *gateway) logged() []map[string]any {
	g.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.Fatal(err)
	}
	var lines []map[string]any
	for line := range bytes.Lines(text) {
		var fields map[string]any
		if json.Unmarshal(line, &fields) == nil { // not the one that is being written
			lines = append(lines, fields)
		}
	}
	return lines
}

// awaitLog waits for a line in the log: Caddy writes it after the answer.
func (g *gateway) awaitLog(is func(map[string]any) bool) (found map[string]any) {
	g.Helper()
	g.await("a line in the log", func() bool {
		for _, line := range g.logged() {
			if is(line) {
				found = line
				return true
			}
		}
		return false
	})
	return found
}

// await waits until a condition holds.
func (g *gateway) await(what string, holds func() bool) {
	g.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.Fatalf("waited in vain for %s", what)
		}
	}
}
