package main_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A moment is where a request stands to a change.
type moment int32

const (
	before moment = iota // it was answered before the change was asked for, or in force
	during
	after // it began when the change had been answered, or was in force
)

// clients ask with one token until they are told to stop.
type clients struct {
	stop     chan struct{}
	running  sync.WaitGroup
	mu       sync.Mutex
	statuses [after + 1]map[int]int // how many requests were answered so; 0 is no answer
}

// startClients starts clients that know from now where they stand to a change.
func (g *gateway) startClients(method, token string, now func() moment) *clients {
	c := &clients{stop: make(chan struct{})}
	for i := range c.statuses {
		c.statuses[i] = make(map[int]int)
	}
	for range 2 {
		c.running.Go(func() {
			for {
				select {
				case <-c.stop:
					return
				default:
				}
				began := now()
				status := g.statusOf(method, token)
				when := during
				switch {
				case began == after:
					when = after
				case now() == before:
					when = before
				}
				c.mu.Lock()
				c.statuses[when][status]++
				c.mu.Unlock()
			}
		})
	}
	return c
}

func (g *gateway) statusOf(method, token string) int {
	req, err := http.NewRequest(method, g.url+"/load", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := g.client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

// at returns how the requests of a moment were answered.
func (c *clients) at(when moment) map[int]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.statuses[when])
}

// await waits until enough requests of a moment were answered.
func (c *clients) await(t *testing.T, when moment) {
	t.Helper()
	waitFor(t, "requests", func() bool {
		n := 0
		for _, requests := range c.at(when) {
			n += requests
		}
		return n >= 200
	})
}

// require checks that all requests of a moment were answered with one status, and
// prints how many there were.
func (c *clients) require(t *testing.T, what string, when moment, status int) {
	t.Helper()
	statuses := c.at(when)
	n := statuses[status]
	delete(statuses, status)
	others := 0
	for _, requests := range statuses {
		others += requests
	}
	t.Logf("%-58s %6d answered %d, %d otherwise", what, n, status, others)
	if n == 0 || others > 0 {
		t.Errorf("%s: %d answered %d, the others %v", what, n, status, statuses)
	}
}

func (c *clients) end() {
	close(c.stop)
	c.running.Wait()
}

// change sends what changes a key, and sets where requests stand to it.
func (g *gateway) change(now *atomic.Int32, method, path, body string) {
	g.t.Helper()
	header := http.Header{"Content-Type": {"application/json"}}
	now.Store(int32(during))
	status, answer, err := g.ask(method, path, header, body)
	now.Store(int32(after))
	if err != nil || status != http.StatusOK {
		g.t.Fatalf("%s %s: HTTP %d, %v, %s", method, path, status, err, answer)
	}
}

// The figures are those that were promised: go test -v -run RotationUnderLoad
func TestRotationUnderLoadAndRevocationAndScopeHoldForEveryRequest(t *testing.T) {
	g := startGateway(t, plainSite)
	g.rotateUnderLoad(t)
	g.revokeUnderLoad(t)
	g.narrowUnderLoad(t)
}

// Nobody fails inside the grace, and nobody is served with the old token after it.
func (g *gateway) rotateUnderLoad(t *testing.T) {
	old := g.issue(nil)
	var end atomic.Int64 // of the old key, in Unix milliseconds
	now := func() moment {
		if at := end.Load(); at != 0 && time.Now().UnixMilli() >= at {
			return after
		}
		return before
	}
	a := g.startClients("GET", old["key"], now)
	defer a.end()
	a.await(t, before)

	status, body, err := g.ask("POST", "/api_keys/keys/"+old["id"]+"/rotate", http.Header{"Content-Type": {"application/json"}}, `{"gracePeriod":"2s"}`)
	var rotated envelope
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &rotated) != nil {
		t.Fatalf("rotating: HTTP %d, %v, %s", status, err, body)
	}
	g.keepSecret(rotated.Data["key"])
	at, err := time.Parse(time.RFC3339Nano, g.look(old["id"])["expiresAt"])
	if err != nil {
		t.Fatal(err)
	}
	end.Store(at.UnixMilli())
	b := g.startClients("GET", rotated.Data["key"], now)
	defer b.end()
	b.await(t, before)
	a.await(t, after)
	b.await(t, after)

	a.require(t, "client A, old token, up to the end of the grace:", before, 200)
	a.require(t, "client A, old token, begun after it:", after, 401)
	b.require(t, "client B, new token, inside the grace:", before, 200)
	b.require(t, "client B, new token, begun after it:", after, 200)
}

func (g *gateway) revokeUnderLoad(t *testing.T) {
	key, other := g.issue(nil), g.issue(nil)
	var now atomic.Int32
	where := func() moment { return moment(now.Load()) }
	revoked, good := g.startClients("GET", key["key"], where), g.startClients("GET", other["key"], where)
	defer revoked.end()
	defer good.end()
	revoked.await(t, before)
	g.change(&now, http.MethodDelete, "/api_keys/keys/"+key["id"], "")
	revoked.await(t, after)
	good.await(t, after)

	revoked.require(t, "the revoked key, before the call:", before, 200)
	revoked.require(t, "the revoked key, begun after its answer:", after, 401)
	good.require(t, "another key, before the call:", before, 200)
	good.require(t, "another key, begun after its answer:", after, 200)
}

func (g *gateway) narrowUnderLoad(t *testing.T) {
	key := g.issue(map[string]string{"scope": "read-write"})
	var now atomic.Int32
	where := func() moment { return moment(now.Load()) }
	writes, reads := g.startClients("POST", key["key"], where), g.startClients("GET", key["key"], where)
	defer writes.end()
	defer reads.end()
	writes.await(t, before)
	reads.await(t, before)
	g.change(&now, http.MethodPatch, "/api_keys/keys/"+key["id"], `{"scope":"read"}`)
	writes.await(t, after)
	reads.await(t, after)

	writes.require(t, "writes, before the scope became read:", before, 200)
	writes.require(t, "writes, begun after the answer:", after, 403)
	reads.require(t, "reads, before:", before, 200)
	reads.require(t, "reads, while it changed and after:", after, 200)
	for status, n := range reads.at(during) {
		if status != 200 {
			t.Errorf("%d reads were answered %d while the scope changed", n, status)
		}
	}
}
