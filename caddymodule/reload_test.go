package caddymodule_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
)

func TestReloadsUnderLoadFailNoRequestAndLoseNoUse(t *testing.T) {
	const guarded = "api_keys\nrespond ok" // a proxy would keep connections to its upstream
	g := start(t, ``, guarded)
	openFiles := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // not on this system
		}
		return len(files)
	}
	k := g.issue(reader)
	g.send("GET", "/", "", k.header())
	goroutines, files := runtime.NumGoroutine(), openFiles()

	var sent, dropped, gone atomic.Uint64
	sent.Add(1)
	var clients sync.WaitGroup
	finished := make(chan struct{})
	for i := range 3 {
		clients.Go(func() {
			client := g.client
			if i == 0 { // a connection for each request: none is idle when its server ends
				client = newClient(t, &http.Transport{DisableKeepAlives: true})
			}
			for {
				select {
				case <-finished:
					return
				default:
				}
				req, err := http.NewRequest("GET", "http://"+g.site+"/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+k.Token)
				resp, err := client.Do(req)
				if err != nil {
					// Caddy's old server lets connections go that it has
					// no request of yet. Nobody has seen this one.
					dropped.Add(1)
					continue
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 {
					t.Error(resp.StatusCode, string(body), err)
					return
				}
				sent.Add(1)
			}
		})
	}
	const reloads = 50
	for i := range reloads {
		app, err := caddy.ActiveContext().App("api_keys")
		if err != nil {
			t.Fatal(err)
		}
		runtime.AddCleanup(app.(*caddymodule.App), func(int) { gone.Add(1) }, 0)
		// Also a configuration that differs, in a setting that the store outlives.
		if err := g.load([]string{``, fmt.Sprintf("api_keys {\nper_key_metrics %d\n}", i)}[i%2], guarded); err != nil {
			t.Fatal(err)
		}
		issueInProcess(t)
	}
	close(finished)
	clients.Wait()
	t.Logf("%d reloads: %d requests answered, %d connections closed before their request was read", reloads, sent.Load(), dropped.Load())
	// While a flush is under way, what it writes can be seen twice.
	g.await(fmt.Sprintf("%d recorded uses", sent.Load()), func() bool { return uses(t, k) == sent.Load() })
	g.await(fmt.Sprintf("as few goroutines (%d) and open files (%d) as before, and the old configurations to be let go", goroutines, files), func() bool {
		g.client.CloseIdleConnections()
		runtime.GC()
		return runtime.NumGoroutine() <= goroutines+5 && openFiles() <= files+5 && gone.Load() == reloads
	})
	stop(t)
	mustBeFree(t, g.storePath())
}

func TestFailedReloadsLeaveTheRunningConfigurationAlone(t *testing.T) {
	g := start(t, ``, site)
	other := filepath.Join(g.dir, "other.db")
	locked := filepath.Join(g.dir, "locked.db")
	lock, err := bolt.Open(locked, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	used := g.issue(reader)
	g.passed(g.send("GET", "/", "", used.header()))

	for _, row := range []struct{ name, global, site, reason string }{
		{"unknown word", ``, "api_keys {\nunknown\n}", "unknown subdirective"},
		{"bad prefix", "api_keys {\nprefix _\n}", site, "prefix"},
		{"bad retired prefix", "api_keys {\nretired_prefixes -\n}", site, "prefix"},
		{"huge index", "api_keys {\nindex_size 1000000000\n}", site, "index_size is 1000000000"},
		{"bad header", ``, "api_keys {\nidentity_header nobody X\n}", "unknown name"},
		{"store is a directory", "api_keys {\nstorage bolt DIR\n}", site, "a directory"},
		{"store is not one", "api_keys {\nstorage bolt DIR/log\n}", site, "not a key store"},
		{"store cannot be created", "api_keys {\nstorage bolt DIR/log/x.db\n}", site, "DIR/log/x.db"},
		{"store is locked", "api_keys {\nstorage bolt DIR/locked.db\n}", site, "another process uses it"},
		{"unset variable", "api_keys {\nstorage bolt {env.NO_SUCH_VARIABLE}/x.db\n}", site, "env.NO_SUCH_VARIABLE"},
		{"another app fails", "api_keys {\nstorage bolt DIR/other.db\n}", "bind 192.0.2.1\n" + site, "192.0.2.1"},
		{"the same store, and another app fails", ``, "bind 192.0.2.1\n" + site, "192.0.2.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := *g
			g.TB = t
			unused := g.issue(reader) // not in the index
			err := g.load(row.global, row.site)
			if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(row.reason, "DIR", g.dir)) {
				t.Fatalf("the error is %v, want one about %q", err, row.reason)
			}
			g.passed(g.send("GET", "/", "", used.header()))
			g.passed(g.send("GET", "/", "", unused.header()))
			if ready, reason := g.ready(); !ready {
				t.Error(reason)
			}
			if _, err := os.Stat(other); err == nil {
				mustBeFree(t, other)
			}
		})
	}
	if err := g.load(``, site); err != nil {
		t.Fatal(err)
	}
	g.passed(g.send("GET", "/", "", used.header()))
	stop(t)
	mustBeFree(t, g.storePath())
}

func TestReloadToAnotherStoreAndBackKeepsEveryKeyInItsOwn(t *testing.T) {
	g := start(t, ``, site)
	other := "api_keys {\nstorage bolt DIR/a/b/other.db\n}"
	first := g.issue(reader)
	g.passed(g.send("GET", "/", "", first.header()))
	revoked := g.issueRevoked()
	for range 3 {
		if err := g.load(other, site); err != nil {
			t.Fatal(err)
		}
		mustBeFree(t, g.storePath())
		second := g.issue(reader)
		g.passed(g.send("GET", "/", "", second.header()))
		g.refused(g.send("GET", "/", "", first.header()), 401, "invalid_token", invalidToken)
		if err := g.load(``, site); err != nil {
			t.Fatal(err)
		}
		mustBeFree(t, filepath.Join(g.dir, "a/b/other.db"))
		g.refused(g.send("GET", "/", "", second.header()), 401, "invalid_token", invalidToken)
		g.passed(g.send("GET", "/", "", first.header()))
		g.refused(g.send("GET", "/", "", revoked.header()), 401, "invalid_token", invalidToken)
	}
	if got := uses(t, first); got != 4 {
		t.Errorf("%d uses are recorded, want 4", got)
	}
}

// One file under two names is one store.
func TestOneFileUnderTwoNamesIsSharedOverAReload(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	if err := os.Symlink(filepath.Join(g.dir, "caddy"), filepath.Join(g.dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"DIR/link/api-keys.db", "DIR/caddy/../link/./api-keys.db", "{env.XDG_DATA_HOME}/caddy/api-keys.db"} {
		if err := g.load("api_keys {\nstorage bolt "+path+"\n}", site); err != nil {
			t.Fatal(err)
		}
		g.passed(g.send("GET", "/", "", k.header()))
	}
}

// held keeps requests in front of all other handlers: those for /held until what
// a test has put there is closed, those for /gone until their client has left.
type held struct{}

var heldUntil atomic.Value // of chan struct{}

func init() {
	caddy.RegisterModule(held{})
	httpcaddyfile.RegisterHandlerDirective("held", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return held{}, nil })
	httpcaddyfile.RegisterDirectiveOrder("held", httpcaddyfile.Before, "tracing")
}

func (held) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.held", New: func() caddy.Module { return new(held) }}
}

func (held) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch r.URL.Path {
	case "/held":
		w.WriteHeader(http.StatusProcessing) // tells the test that it is here
		<-heldUntil.Load().(chan struct{})
	case "/gone":
		<-r.Context().Done()
	}
	return next.ServeHTTP(w, r)
}

// hold sends a request that stays in front of the gate until it is let go, and
// returns how to do that and get the answer.
func (g *gateway) hold(k key) (release func() answer) {
	g.Helper()
	until := make(chan struct{})
	heldUntil.Store(until)
	conn := persist(g, func() (connection, error) {
		conn := g.dial()
		fmt.Fprintf(conn, "GET /held HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", k.header())
		_, err := http.ReadResponse(conn.Reader, nil) // 102: it is there
		return conn, err
	})
	return func() answer {
		g.Helper()
		close(until)
		resp, err := http.ReadResponse(conn.Reader, nil)
		if err != nil {
			g.Fatal(err)
		}
		return read(g, resp)
	}
}

func TestRequestsOutliveTheConfigurationThatTheyCameUnder(t *testing.T) {
	g := start(t, ``, "held\n"+site)
	k := g.issue(reader)
	g.passed(g.send("GET", "/", "", k.header()))
	unused := g.issue(reader)

	atUpstream := make(chan answer)
	go func() { atUpstream <- g.send("GET", "/hold", "", k.header()) }()
	g.await("the request to reach the upstream", func() bool { return len(g.upstream.take()) == 1 })

	// A reload that keeps the store lets them go on.
	release := g.hold(k)
	if err := g.load(``, "held\n"+site); err != nil {
		t.Fatal(err)
	}
	g.passed(release())
	release = g.hold(k)
	if err := g.load("api_keys {\nprefix other\nretired_prefixes ak\n}", "held\n"+site); err != nil {
		t.Fatal(err)
	}
	g.revoke(k)
	g.refused(release(), 401, "invalid_token", invalidToken)

	// One that closes the store leaves nothing to find out from.
	released := []func() answer{g.hold(unused)}
	if err := g.load(``, `respond "no keys any more"`); err != nil {
		t.Fatal(err)
	}
	mustBeFree(t, g.storePath())
	for _, release := range released {
		a := release()
		g.refused(a, 503, "store_unavailable", noChallenge)
	}
	g.upstream.letGo()
	g.passedLate(<-atUpstream)
	stop(t)
}

// passedLate checks the answer to a request that the upstream was known to have.
func (g *gateway) passedLate(a answer) {
	g.Helper()
	if a.Status != 200 || a.Text != "from the upstream" {
		g.Errorf("got %d %s", a.Status, a.Text)
	}
}

// A key that is revoked in the store as it is open now must not be accepted by
// what an old configuration remembers of it.
func TestOldConfigurationDoesNotAnswerFromAStoreThatWasClosed(t *testing.T) {
	g := start(t, ``, "held\n"+site)
	k := g.issue(reader)
	g.passed(g.send("GET", "/", "", k.header()))
	release := g.hold(k)
	for _, global := range []string{"api_keys {\nstorage bolt DIR/other.db\n}", ``} {
		if err := g.load(global, site); err != nil {
			t.Fatal(err)
		}
	}
	g.revoke(k)
	g.refused(release(), 503, "store_unavailable", noChallenge)
}
