package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestAFleetMigratesWithoutAFailedRequest(t *testing.T) {
	page := openRecipe(t, "migrate.md")
	old := map[string]string{ // user by token
		"8f1c2b7d9e0a4c55b3d2": "carol", "1b9e7a30c4d84f60a6f1": "dave", "c07d5e2288ab4b19921e": "erin",
	}
	api := &oldAPI{tokens: old}
	g := newGateway(t, plainSite)
	g.upstream.Server = httptest.NewServer(api)
	t.Cleanup(g.upstream.Close)

	// 1, 2: what is configured lets all pass, and tells who would not.
	g.configure(g.here(page.next("caddyfile")))
	g.start()
	fleet := g.startFleet(old)
	defer fleet.stop()
	series := strings.Fields(page.next("text"))
	waitFor(t, "refusals to be observed", func() bool { return g.count(series[0]) > 0 })
	if a := g.send("GET", "/anonymous", "", ""); a.status != http.StatusUnauthorized || string(a.body) != "the old API refuses" {
		t.Errorf("a request that the API refuses: HTTP %d %s", a.status, a.body)
	}
	if got := g.count(series[2]); got != 1 {
		t.Errorf("%s is %d after one request without a token", series[2], got)
	}

	// 3, 4: at first somebody is forgotten.
	steps := page.next("sh")
	for _, forgotten := range []string{"erin", ""} {
		var lines []string
		for token, user := range old {
			if user != forgotten {
				lines = append(lines, token+","+user+"'s job,"+user)
			}
		}
		if err := os.MkdirAll(g.scripts(), 0o700); err != nil {
			t.Fatal(err)
		}
		// As a spreadsheet may write it: the last line has no end.
		if err := os.WriteFile(filepath.Join(g.scripts(), "old-tokens.csv"), []byte(strings.Join(lines, "\r\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		if says := g.follow(steps); !strings.Contains(says, fmt.Sprintf("%d keys.jsonl", len(lines))) {
			t.Errorf("of %d tokens it says %s", len(lines), says)
		}
		fleet.goOn()
		before := g.count(series[0]) + g.count(series[1])
		fleet.goOn()
		after := g.count(series[0]) + g.count(series[1])
		if known := after == before; known != (forgotten == "") {
			t.Errorf("with %q forgotten, refusals go from %d to %d", forgotten, before, after)
		}
	}
	if list := g.follow(page.next("sh")); strings.Count(list, "Z\n") != len(old) {
		t.Errorf("the list does not tell when %d keys were used last:\n%s", len(old), list)
	}

	// 5: who has no good key is refused, and the API is not asked.
	g.configure(g.here(page.next("caddyfile")))
	g.follow(page.next("sh"))
	for _, token := range []string{"", "somebody-else"} {
		if a := g.send("GET", "/anonymous", token, ""); a.status != http.StatusUnauthorized || strings.Contains(string(a.body), "the old API") {
			t.Errorf("token %q: HTTP %d %s", token, a.status, a.body)
		}
	}
	fleet.goOn()

	// 6: the API believes the gateway, and sees no token any more.
	api.trusts.Store(true)
	g.configure(g.here(page.next("caddyfile")))
	g.follow(page.next("sh"))
	fleet.goOn()
	api.sawToken.Store(false)
	fleet.goOn()
	if api.sawToken.Load() {
		t.Error("the API still sees tokens")
	}
	token := aToken.FindString(g.follow(page.next("sh")))
	g.requireStatus(200, "GET", "/", token)
	fleet.goOn()
	t.Logf("%d requests of %d clients, %d connections lost and made again", fleet.stop(), len(old), fleet.lost.Load())
}

// oldAPI is an API that checks tokens of its own, until it trusts the gateway.
type oldAPI struct {
	tokens           map[string]string // users
	trusts, sawToken atomic.Bool
}

func (a *oldAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if found {
		a.sawToken.Store(true)
	}
	user := a.tokens[token]
	if a.trusts.Load() && user == "" {
		user = r.Header.Get("X-User-Id")
	}
	if user == "" {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "the old API refuses")
		return
	}
	io.WriteString(w, user)
}

// fleet are clients that send requests all the time, and expect to be known.
type fleet struct {
	t       *testing.T
	sent    []atomic.Int64
	lost    atomic.Int64 // connections, when Caddy is reloaded
	stopped chan struct{}
	once    sync.Once
	clients sync.WaitGroup
}

func (g *gateway) startFleet(tokens map[string]string) *fleet {
	f := &fleet{t: g.t, sent: make([]atomic.Int64, len(tokens)), stopped: make(chan struct{})}
	client := 0
	for token, user := range tokens {
		sent := &f.sent[client]
		client++
		f.clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-f.stopped:
					return
				default:
				}
				err := g.sendAsFleet(i, token, user)
				if connectionLost(err) {
					f.lost.Add(1)
					err = g.sendAsFleet(i, token, user)
				}
				if err != nil {
					f.t.Errorf("request %d of %s: %v", i, user, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	return f
}

func (g *gateway) sendAsFleet(i int, token, user string) error {
	method := []string{http.MethodGet, http.MethodPost}[i%2]
	req, err := http.NewRequest(method, g.url+"/work", strings.NewReader("body"))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Idempotency-Key", "none") // see oneRequest
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != user) {
		err = fmt.Errorf("%s: HTTP %d: %s", method, resp.StatusCode, body)
	}
	return err
}

// goOn waits until every client has sent requests that began after now.
func (f *fleet) goOn() {
	f.t.Helper()
	for client := range f.sent {
		sent := &f.sent[client]
		before := sent.Load()
		waitFor(f.t, "the fleet to go on", func() bool { return sent.Load() > before+1 || f.t.Failed() })
	}
}

// stop returns how many requests there were.
func (f *fleet) stop() (sent int64) {
	f.once.Do(func() { close(f.stopped) })
	f.clients.Wait()
	for client := range f.sent {
		sent += f.sent[client].Load()
	}
	return sent
}

// count returns the value of a series, or 0 when there is none.
func (g *gateway) count(series string) int {
	g.t.Helper()
	for line := range strings.Lines(g.get("/metrics")) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return int(n)
		}
	}
	return 0
}
