package caddymodule_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
)

// BenchmarkGate measures what the gate adds to a request. Each request is made
// as Caddy makes it; "no gate" is what that alone costs.
func BenchmarkGate(b *testing.B) {
	config := fmt.Sprintf(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {"writer": {"output": "discard"}}}},
		"apps": {"api_keys": {"storage": {"driver": "bolt", "path": %q}}}
	}`, filepath.Join(b.TempDir(), "keys.db"))
	if err := caddy.Load([]byte(config), true); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { caddy.Stop() })
	token := issueInProcess(b).Token
	gate := new(caddymodule.Gate)
	if err := gate.Provision(caddy.ActiveContext()); err != nil {
		b.Fatal(err)
	}
	arrived := false
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
		arrived = true
		return nil
	})
	through := func(w http.ResponseWriter, r *http.Request) error { return gate.ServeHTTP(w, r, next) }
	wrong := token[:len(token)-1] + "-"

	for _, c := range []struct {
		name, credential string
		handler          caddyhttp.HandlerFunc
		passes           bool
	}{
		{"no gate", "Bearer " + token, next, true},
		{"good key", "Bearer " + token, through, true},
		{"mistyped key", "Bearer " + wrong, through, false},
		{"no key", "", through, false},
	} {
		header := http.Header{
			"Accept":          {"application/json"},
			"Accept-Encoding": {"gzip, deflate, br"},
			"User-Agent":      {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"},
			"X-Request-Id":    {"abc-123"},
		}
		if c.credential != "" {
			header["Authorization"] = []string{c.credential}
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			server := new(caddyhttp.Server)
			ctx := caddymodule.WithConn(context.Background(), new(net.TCPConn))
			for b.Loop() {
				arrived = false
				r := httptest.NewRequestWithContext(ctx, "GET", "/v1/things/42", nil)
				r.RemoteAddr = "192.0.2.1:1234"
				r.Header = header.Clone()
				w := httptest.NewRecorder()
				if err := c.handler(w, caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)); err != nil || arrived != c.passes {
					b.Fatal(w.Code, err)
				}
			}
		})
	}
}
