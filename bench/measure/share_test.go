package main

import "testing"

const traces = `File: cmd-caddy
Type: cpu
Duration: 8s, Total samples = 100ms (1.25%)
-----------+-------------------------------------------------------
      20ms   crypto/internal/fips140/sha256.blockSHANI
             crypto/sha256.Sum256
             github.com/caddy-apikeys/caddy-apikeys/apikey.(*digest).matches
             github.com/caddy-apikeys/caddy-apikeys/caddymodule.(*checker).check
             github.com/caddy-apikeys/caddy-apikeys/caddymodule.(*Gate).ServeHTTP
             github.com/caddyserver/caddy/v2/modules/caddyhttp.(*Server).enforcementHandler
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      10ms   context.WithCancel
             github.com/caddy-apikeys/caddy-apikeys/caddymodule.(*watchlist).watched
             github.com/caddy-apikeys/caddy-apikeys/caddymodule.(*Gate).ServeHTTP
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      30ms   internal/runtime/syscall.Syscall6
             github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy.(*Handler).ServeHTTP
             github.com/caddyserver/caddy/v2/modules/caddyhttp.HandlerFunc.ServeHTTP
             github.com/caddy-apikeys/caddy-apikeys/caddymodule.(*Gate).ServeHTTP
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      10ms   runtime.memmove
             go.etcd.io/bbolt.(*node).write
             github.com/caddy-apikeys/caddy-apikeys/storage/boltstore.(*Store).serve
-----------+-------------------------------------------------------
      30ms   runtime.scanobject
             runtime.gcBgMarkWorker.func2
             runtime.gcBgMarkWorker
`

func TestProfileIsSplitByWhoseTheStacksAre(t *testing.T) {
	got, err := parseTraces([]byte(traces))
	want := share{Samples: 10, Handler: 30, Check: 20, Background: 10, Collector: 30}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestAProfileWithoutSamplesIsAnError(t *testing.T) {
	if got, err := parseTraces([]byte("File: cmd-caddy\nType: cpu\n")); err == nil {
		t.Errorf("got %+v", got)
	}
}
