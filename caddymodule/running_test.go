package caddymodule_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
)

// startEvents returns the address of an upstream that sends events until its
// client leaves.
func startEvents(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// stream is a request that goes on until somebody ends it.
type stream struct {
	got   atomic.Int64 // bytes
	end   chan time.Time
	close func()
}

// follow counts what comes of a stream.
func follow(from io.Reader, close func()) *stream {
	s := &stream{end: make(chan time.Time, 1), close: close}
	go func() {
		var buf [512]byte
		for {
			n, err := from.Read(buf[:])
			s.got.Add(int64(n))
			if err != nil {
				s.end <- time.Now()
				return
			}
		}
	}()
	return s
}

// events follows the events of a path.
func (g *gateway) events(path string, k key) *stream {
	g.Helper()
	conn := g.dial()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", path, k.header())
	resp, err := http.ReadResponse(conn.Reader, nil)
	if err != nil || resp.StatusCode != 200 {
		g.Fatal(resp, err)
	}
	return follow(resp.Body, func() { conn.Close() })
}

// socket upgrades a connection, on which it talks for ever.
func (g *gateway) socket(path string, k key) *stream {
	g.Helper()
	conn := g.dial()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n\r\n", path, k.header())
	resp, err := http.ReadResponse(conn.Reader, nil)
	if err != nil || resp.StatusCode != 101 {
		g.Fatal(resp, err)
	}
	go func() {
		for {
			if _, err := io.WriteString(conn, "hello"); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return follow(conn, func() { conn.Close() })
}

// runs checks that a stream goes on.
func (g *gateway) runs(what string, s *stream) {
	g.Helper()
	before := s.got.Load()
	g.await(what+" to go on", func() bool { return s.got.Load() > before+50 })
}

// watched waits until so many requests are watched.
func (g *gateway) watched(n int) {
	g.Helper()
	g.await(fmt.Sprintf("%d watched requests", n), func() bool {
		requests, watching := caddymodule.WatchedRequests()
		return requests == n && watching == (n > 0)
	})
}

// endsAfter waits for the end of a stream, which must not come before a time.
func (g *gateway) endsAfter(what string, s *stream, earliest time.Time) {
	g.Helper()
	select {
	case end := <-s.end:
		if end.Before(earliest) {
			g.Errorf("%s ended %v too early", what, earliest.Sub(end))
		}
	case <-time.After(30 * time.Second):
		g.Errorf("%s never ended", what)
	}
}

// cancelled counts the requests of a key of which the log says that they were cancelled.
func (g *gateway) cancelled(k key) (n int) {
	g.Helper()
	for _, line := range g.logged() {
		if line["msg"] == "cancelled a request whose key has ended" && line["api_key_id"] == k.ID {
			n++
		}
	}
	return n
}

const cancelAfter = time.Second

func longSite(events string) string {
	return strings.ReplaceAll(`
		route {
			api_key_auth /off/* {
				cancel_after off
			}
			api_key_auth /cut/* {
				cancel_after 1s
			}
			reverse_proxy /*/socket UPSTREAM {
				stream_close_delay 1h
			}
			reverse_proxy EVENTS
		}`, "EVENTS", events)
}

func TestLongRequestsAreCutSoonAfterTheirKeyEndsAndNoOthersAre(t *testing.T) {
	g := start(t, ``, longSite(startEvents(t)))
	type victim struct {
		what     string
		key      key
		streams  []*stream
		earliest time.Time
	}
	expiry := time.Now().Add(3 * time.Second).Truncate(time.Millisecond)
	victims := []*victim{
		{what: "of a revoked key", key: g.issue(writer)},
		{what: "of a rotated key", key: g.issue(writer)},
		{what: "of a shortened key", key: g.issue(writer)},
		{what: "of an expired key", key: g.issue(writer + `,"expiresAt":"` + expiry.UTC().Format("2006-01-02T15:04:05.000Z") + `"`), earliest: expiry.Add(cancelAfter)},
	}
	open := func(k key) []*stream {
		return []*stream{g.events("/cut/events", k), g.socket("/cut/socket", k)}
	}
	good := g.issue(writer)
	alive := open(good)
	for _, v := range victims {
		v.streams = open(v.key)
	}
	// One that is begun by the same key where nothing is cut goes on.
	spared := []*stream{g.events("/off/events", victims[0].key), g.socket("/off/socket", victims[0].key)}
	g.watched(2 * (len(victims) + 1))
	for _, s := range append(spared, alive...) {
		g.runs("a stream", s)
	}

	// A reload in between changes nothing.
	if err := g.load(``, longSite(startEvents(t))); err != nil {
		t.Fatal(err)
	}
	victims[0].earliest = time.Now().Add(cancelAfter)
	g.revoke(victims[0].key)
	victims[1].earliest = time.Now().Add(time.Second + cancelAfter)
	if a := g.operate("POST", "/api_keys/keys/"+victims[1].key.ID+"/rotate", `{"gracePeriod":"1s"}`, asJSON); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Text)
	}
	end := time.Now().Add(time.Second).Truncate(time.Millisecond)
	victims[2].earliest = end.Add(cancelAfter)
	if a := g.operate("PATCH", "/api_keys/keys/"+victims[2].key.ID, `{"expiresAt":"`+end.UTC().Format("2006-01-02T15:04:05.000Z")+`"}`, asJSON); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Text)
	}
	for _, v := range victims {
		g.endsAfter("an event stream "+v.what, v.streams[0], v.earliest)
		g.endsAfter("a socket "+v.what, v.streams[1], v.earliest)
	}
	g.watched(len(alive))
	for _, v := range victims {
		g.await("a line in the log for each cancelled request "+v.what, func() bool { return g.cancelled(v.key) == len(v.streams) })
	}
	if n := g.cancelled(good); n > 0 {
		t.Errorf("the log tells of %d cancelled requests of a good key", n)
	}
	for _, s := range append(spared, alive...) {
		g.runs("a stream", s)
		s.close()
	}
	g.watched(0)
	if a := g.send("GET", "/cut/socket", "", good.header()); a.Status != 200 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
}

// hidden hands on a response writer of which nobody can tell whose it is, as that of
// another plugin may be.
type hidden struct{}

func init() {
	caddy.RegisterModule(hidden{})
	httpcaddyfile.RegisterHandlerDirective("hidden", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return hidden{}, nil })
}

func (hidden) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.hidden", New: func() caddy.Module { return new(hidden) }}
}

func (hidden) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
}

func TestUploadsAreCut(t *testing.T) {
	reading := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	t.Cleanup(reading.Close)
	over := make(chan struct{})
	waiting := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(waiting.Close)
	t.Cleanup(func() { close(over) })
	g := start(t, ``, strings.NewReplacer("READING", reading.Listener.Addr().String(), "WAITING", waiting.Listener.Addr().String()).Replace(`
		api_key_auth {
			cancel_after 1s
		}
		reverse_proxy /read READING
		reverse_proxy WAITING`))
	k := g.issue(writer)
	uploads := map[string]*stream{
		"that is read":      g.upload("/read", "Content-Length: 1000000", k),
		"that is not read":  g.upload("/wait", "Content-Length: 1000000", k),
		"of unknown length": g.upload("/wait", "Transfer-Encoding: chunked", k),
	}
	g.watched(len(uploads))
	earliest := time.Now().Add(cancelAfter)
	g.revoke(k)
	for name, s := range uploads {
		g.endsAfter("an upload "+name, s, earliest)
	}
	g.watched(0)
}

// upload begins a request that does not come to its end.
func (g *gateway) upload(path, length string, k key) *stream {
	conn := g.dial()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s\r\n\r\n5\r\n01234\r\n", path, length, k.header())
	return follow(conn, func() { conn.Close() })
}

// A response writer of another plugin may not tell whose it is around.
func TestLongRequestsAreCutWhateverTheyAnswerOn(t *testing.T) {
	g := start(t, allowHTTP2, strings.ReplaceAll(`
		route {
			hidden
			api_key_auth {
				cancel_after 1s
			}
			reverse_proxy EVENTS
		}`, "EVENTS", startEvents(t)))
	g.overHTTP2()
	k := g.issue(writer)
	req, err := http.NewRequest("GET", "http://"+g.site, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+k.Token)
	resp, err := g.client.Do(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	over2, over1 := follow(resp.Body, func() { resp.Body.Close() }), g.events("/", k)
	g.watched(2)
	earliest := time.Now().Add(cancelAfter)
	g.revoke(k)
	g.endsAfter("a stream over HTTP/2", over2, earliest)
	g.endsAfter("a stream over HTTP/1", over1, earliest)
	g.watched(0)
}

// Go's server does not see a client leave that has sent its next request.
func TestALongRequestIsCutThoughTheNextWasSent(t *testing.T) {
	g := start(t, ``, longSite(startEvents(t)))
	k := g.issue(writer)
	conn := g.dial()
	request := "GET /cut/events HTTP/1.1\r\nHost: x\r\n" + k.header() + "\r\n\r\n"
	io.WriteString(conn, request)
	s := follow(conn, func() {})
	g.runs("the stream", s)
	io.WriteString(conn, request)
	g.runs("the stream", s)
	earliest := time.Now().Add(cancelAfter)
	g.revoke(k)
	g.endsAfter("the stream", s, earliest)
	g.watched(0)
}

// Where a key cannot be looked up, nobody knows that it has ended.
func TestLongRequestsGoOnWithoutTheStore(t *testing.T) {
	g := start(t, ``, longSite(startEvents(t)))
	k := g.issue(writer)
	s := g.events("/cut/events", k)
	g.watched(1)
	restore := g.cut()
	g.runs("a stream", s)
	restore()
	earliest := time.Now().Add(cancelAfter)
	g.revoke(k)
	g.endsAfter("the stream", s, earliest)
	g.watched(0)
}

func TestEndedRequestsAreNotWatched(t *testing.T) {
	g := start(t, ``, longSite(startEvents(t)))
	k := g.issue(writer)
	for range 20 {
		g.passed(g.send("GET", "/cut/socket", "", k.header()))
	}
	g.watched(0)
}

// noted keeps the contexts of requests that have come so far.
type noted struct{}

var contexts = make(chan context.Context, 2)

func init() {
	caddy.RegisterModule(noted{})
	httpcaddyfile.RegisterHandlerDirective("noted", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return noted{}, nil })
	httpcaddyfile.RegisterDirectiveOrder("noted", httpcaddyfile.Before, "reverse_proxy")
}

func (noted) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.noted", New: func() caddy.Module { return new(noted) }}
}

func (noted) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	contexts <- r.Context()
	return next.ServeHTTP(w, r)
}

// A context of its own would cost a request more than the check of its key.
func TestARequestThatIsWatchedHasNoOtherContext(t *testing.T) {
	g := start(t, allowHTTP2, "route {\n noted\n api_key_auth\n noted\n }")
	k := g.issue(reader)
	for name, protocol := range map[string]func(){"HTTP/1": func() {}, "HTTP/2": g.overHTTP2} {
		protocol()
		if a := g.send("GET", "/", "", k.header()); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		if before, after := <-contexts, <-contexts; before != after {
			t.Errorf("%s: a context was put around the one of the request", name)
		}
	}
}

// The gate leaves that to the server: nothing that belongs to a request may stay while
// its connection does.
func TestTheContextOfARequestEndsWithItsAnswer(t *testing.T) {
	g := start(t, ``, "api_key_auth\nnoted")
	k := g.issue(reader)
	for _, protocol := range []func(){func() {}, g.overHTTP2} {
		protocol()
		for range 3 {
			if a := g.send("GET", "/", "", k.header()); a.Status != http.StatusOK {
				t.Fatal(a)
			}
			ctx := <-contexts
			g.await("the context to end", func() bool { return ctx.Err() != nil })
		}
	}
	g.watched(0)
}
