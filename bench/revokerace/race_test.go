package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/wire"
)

func TestOnlyRequestsThatBeganAfterTheAnswerCount(t *testing.T) {
	for _, c := range []struct {
		name    string
		forgets bool // the gateway
		want    figure
	}{
		{"a gateway that obeys", false, figure{Requests: each, AcceptedBefore: 3}},
		{"a gateway that forgets", true, figure{Requests: each, Accepted: each, AcceptedBefore: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var answered atomic.Bool
			served := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if served++; served == 3 {
					answered.Store(true) // while this request is under way
				}
				if served > 3 && !c.forgets {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer server.Close()
			conn, err := wire.Dial(strings.TrimPrefix(server.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var got figure
			if err := got.read(conn, "token", &answered); err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
			if got.Misses = 1; got.broken() != c.forgets {
				t.Errorf("the run fails: %v", got.broken())
			}
		})
	}
}
