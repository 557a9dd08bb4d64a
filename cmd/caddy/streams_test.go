package main_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// streamSite proxies streams from plain HTTP/1.1 and HTTP/2, and from HTTP/2 and
// HTTP/3 over TLS.
const streamSite = `{
	admin {$ADMIN}
	grace_period 3s
	skip_install_trust
	auto_https disable_redirects
	servers {
		protocols h1 h2 h2c h3
	}
}

http://127.0.0.1:{$PORT}, https://127.0.0.1:{$TLSPORT} {
	api_key_auth {
		cancel_after 1s
	}
	reverse_proxy /grpc* h2c://{$STREAMS} {
		flush_interval -1
	}
	reverse_proxy {$STREAMS}
}
`

// streams is an upstream whose requests go on until somebody ends them.
type streams struct {
	*httptest.Server
	running atomic.Int64
}

func newStreams(t *testing.T) *streams {
	s := new(streams)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *streams) serve(w http.ResponseWriter, r *http.Request) {
	s.running.Add(1)
	defer s.running.Add(-1)
	out := http.NewResponseController(w)
	switch r.URL.Path {
	case "/socket":
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := out.Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, conn)
	case "/grpc/echo", "/grpc/quiet": // both sides talk, or could
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		out.Flush()
		var message [64]byte
		for {
			n, err := r.Body.Read(message[:])
			w.Write(message[:n])
			out.Flush()
			if err == io.EOF {
				w.Header().Set("Grpc-Status", "0")
			}
			if err != nil {
				return
			}
		}
	case "/flood": // more than anybody reads
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	case "/silent":
		w.Header().Set("Content-Type", "text/event-stream")
		out.Flush()
		<-r.Context().Done()
	default:
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: x\n\n"); err != nil {
				return
			}
			out.Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

// stream is a request that goes on, as its client sees it.
type stream struct {
	name    string
	talks   bool          // something comes all the time
	stalled chan struct{} // its client does not read, until this is closed; or nil
	got     atomic.Int64  // bytes
	ended   chan struct{}
	hangUp  func()
}

func (s *stream) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// follow reads what comes.
func (s *stream) follow(from io.Reader) {
	defer close(s.ended)
	if s.stalled != nil {
		<-s.stalled
	}
	var buf [512]byte
	for {
		n, err := from.Read(buf[:])
		s.got.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// talk writes into a stream until it ends.
func talk(to io.Writer) {
	for {
		if _, err := io.WriteString(to, "hello"); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// openStreams begins a request of every kind with a key.
func (g *gateway) openStreams(protocols map[string]*http.Client, urls map[string]string, key map[string]string) (all []*stream) {
	g.t.Helper()
	for protocol, client := range protocols {
		paths := []string{"/events", "/silent"}
		if protocol != "HTTP/3.0" { // there a stream that nobody reads holds up those beside it
			paths = append(paths, "/flood")
		}
		if !strings.HasPrefix(protocol, "HTTP/1.1") {
			paths = append(paths, "/grpc/echo", "/grpc/quiet")
		}
		for _, path := range paths {
			var body io.Reader
			method, over := "GET", func() error { return nil }
			if strings.HasPrefix(path, "/grpc/") {
				reader, writer := io.Pipe()
				if path == "/grpc/echo" {
					go talk(writer)
				}
				body, method, over = reader, "POST", writer.Close
			}
			req, err := http.NewRequest(method, urls[protocol]+path, body)
			if err != nil {
				g.t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+key["key"])
			if method == "POST" {
				req.Header.Set("Content-Type", "application/grpc")
				req.Header.Set("Te", "trailers")
			}
			resp, err := client.Do(req)
			if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(protocol, resp.Proto[:6]) {
				g.t.Fatalf("%s %s: %v, %v", protocol, path, resp, err)
			}
			s := &stream{name: protocol + " " + path, talks: path != "/silent" && path != "/grpc/quiet", ended: make(chan struct{}), hangUp: func() { over(); resp.Body.Close() }}
			if path == "/flood" {
				s.talks, s.stalled = false, make(chan struct{})
			}
			go s.follow(resp.Body)
			all = append(all, s)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /socket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer %s\r\n\r\n", key["key"])
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		g.t.Fatalf("upgrade: %v, %v", resp, err)
	}
	go talk(conn)
	s := &stream{name: "a WebSocket", talks: true, ended: make(chan struct{}), hangUp: func() { conn.Close() }}
	go s.follow(in)
	return append(all, s)
}

func TestStreamsOverEveryProtocolAreCutAfterTheirKeyEnds(t *testing.T) {
	upstream, tlsPort := newStreams(t), freePort(t)
	g := newGateway(t, streamSite)
	g.env = append(g.env, "STREAMS="+strings.TrimPrefix(upstream.URL, "http://"), "TLSPORT="+tlsPort)
	g.start()

	var h1, h2, h2c http.Protocols
	h1.SetHTTP1(true)
	h2.SetHTTP2(true)
	h2c.SetUnencryptedHTTP2(true)
	insecure := &tls.Config{InsecureSkipVerify: true, ServerName: "127.0.0.1"} // Caddy makes a certificate of its own
	transports := map[string]interface {
		http.RoundTripper
		CloseIdleConnections()
	}{
		"HTTP/1.1":           &http.Transport{Protocols: &h1},
		"HTTP/1.1 under TLS": &http.Transport{Protocols: &h1, TLSClientConfig: insecure.Clone()},
		"HTTP/2.0 in clear":  &http.Transport{Protocols: &h2c},
		"HTTP/2.0 under TLS": &http.Transport{Protocols: &h2, TLSClientConfig: insecure, ForceAttemptHTTP2: true},
		"HTTP/3.0":           &http3.Transport{TLSClientConfig: insecure},
	}
	clients, urls := make(map[string]*http.Client), make(map[string]string)
	for protocol, transport := range transports {
		clients[protocol], urls[protocol] = &http.Client{Transport: transport}, "https://127.0.0.1:"+tlsPort
		defer transport.CloseIdleConnections()
	}
	urls["HTTP/1.1"], urls["HTTP/2.0 in clear"] = g.url, g.url

	waitFor(t, "the certificate", func() bool {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+tlsPort, insecure)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	writer := func(fields map[string]string) map[string]string {
		fields["scope"] = "read-write"
		return g.issue(fields)
	}
	good, revoked, expiring := writer(map[string]string{}), writer(map[string]string{}), writer(map[string]string{})
	staying := g.openStreams(clients, urls, good)
	cut := map[string][]*stream{"revoked": g.openStreams(clients, urls, revoked), "expired": g.openStreams(clients, urls, expiring)}
	each := int64(len(staying))
	goOn := func(all []*stream) {
		t.Helper()
		for _, s := range all {
			if at := s.got.Load(); s.talks {
				waitFor(t, s.name+" to go on", func() bool { return s.got.Load() > at+50 || s.hasEnded() })
			}
			if s.hasEnded() {
				t.Errorf("%s has ended", s.name)
			}
		}
	}
	if n := upstream.running.Load(); n != 3*each {
		t.Fatalf("%d requests run at the upstream, want %d", n, 3*each)
	}
	goOn(cut["revoked"])
	goOn(cut["expired"])

	g.run(g.command("api-keys", "revoke", revoked["id"]))
	g.run(g.command("api-keys", "update", expiring["id"], "--expires-at", inSeconds(2)))
	for why, all := range cut {
		for _, s := range all {
			if s.stalled == nil {
				waitFor(t, s.name+" with a key that is "+why+" to end", s.hasEnded)
			}
		}
	}
	waitFor(t, "the upstream to be told", func() bool { return upstream.running.Load() == each })
	for _, s := range slices.Concat(cut["revoked"], cut["expired"]) {
		if s.stalled != nil { // what was under way is all that still comes
			close(s.stalled)
			waitFor(t, s.name+" to end", s.hasEnded)
		}
	}
	// Those of another key share the connections, and go on.
	goOn(staying)
	t.Logf("of %d streams %d were cut and %d go on", 3*each, 2*each, each)
	for _, s := range staying {
		if s.stalled != nil {
			close(s.stalled)
		}
		s.hangUp()
	}
	waitFor(t, "the upstream to be left", func() bool { return upstream.running.Load() == 0 })
}
