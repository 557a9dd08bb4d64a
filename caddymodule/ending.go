package caddymodule

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A request is ended from outside by what it runs on: over HTTP/1 its connection is
// closed, over HTTP/2 its stream is reset. Go's server then cancels its context, as it
// does when a client leaves. Another context, in between, would cost every request more
// than its check does; it is for what is left (ADR 12).

// connKey finds the connection of a request in its context.
type connKey struct{}

// rememberConns has the server that ctx is of keep the connection of each request.
func rememberConns(ctx caddy.Context) {
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterConnContext(withConn)
	}
}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	if ctx.Value(connKey{}) != nil { // another gate of this server was here
		return ctx
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// stream is implemented by the response writers of HTTP/2. A time to write that is over
// resets it.
type stream interface{ SetWriteDeadline(time.Time) error }

// ending is what a request can be ended by: a net.Conn, a stream, or a
// context.CancelFunc.
type ending any

// endingOf returns the ending of a request, and the request, which may have another
// context then.
func endingOf(w http.ResponseWriter, r *http.Request) (ending, *http.Request) {
	switch r.ProtoMajor {
	case 1:
		if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			return conn, r
		}
	case 2:
		if s, ok := innermost(w).(stream); ok {
			return s, r
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	body, ok := innermost(w).(interface{ SetReadDeadline(time.Time) error })
	if !ok {
		return cancel, r.WithContext(ctx)
	}
	return context.CancelFunc(func() {
		cancel()
		_ = body.SetReadDeadline(longAgo) // else a proxy waits for the client's next byte
	}), r.WithContext(ctx)
}

// innermost returns the response writer of the server. Those that Caddy puts around it
// set deadlines of their own, and are for one goroutine.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = outer.Unwrap()
	}
}

var longAgo = time.Unix(1, 0)

// endBy ends a request that runs. It may take seconds: a connection under TLS waits for
// a client that takes nothing.
func endBy(e ending) {
	switch e := e.(type) {
	case net.Conn:
		_ = e.Close()
	case stream:
		_ = e.SetWriteDeadline(longAgo)
	case context.CancelFunc:
		e()
	}
}
