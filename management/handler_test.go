package management_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func TestAnyOtherPathIsNotFoundAndNeverRedirected(t *testing.T) {
	s := newService(t)
	id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
	check := func(t *testing.T, method, rest string) {
		t.Helper()
		r := httptest.NewRequest(method, mount, nil)
		r.URL.Path = mount + rest
		a := s.send(t, alice, r)
		if a.status != 404 || a.reason() != "not_found" || a.header.Get("Location") != "" {
			t.Errorf("%s: %d %s, Location %q", method, a.status, a.reason(), a.header.Get("Location"))
		}
	}
	for name, rest := range map[string]string{
		"slash alone": "/", "two slashes": "//", "slash after id": "/" + id + "/", "below a key": "/" + id + "/x", "slash before id": "//" + id,
		"dots and a key": "/../" + id, "dot": "/./" + id, "no slash": "x", "no slash before id": id, "matrix parameter": ";a=b",
	} {
		t.Run("no resource/"+name, func(t *testing.T) {
			for _, method := range []string{"GET", "POST", "DELETE", "PUT", "OPTIONS"} {
				check(t, method, rest)
			}
		})
	}
	for name, rest := range map[string]string{
		"dots": "/..", "parameter after id": "/" + id + ";a=b", "backslash": `/\` + id, "space": "/" + id + " ", "upper case": "/" + strings.ToUpper(id),
		"digits without prefix": "/" + strings.TrimPrefix(id, "key_"), "over 128 bits": "/key_zzzzzzzzzzzzzzzzzzzzzz", "zero": "/key_0000000000000000000000",
		"short": "/key_", "NUL": "/" + id + "\x00", "long": "/" + strings.Repeat("a", 1<<16),
	} {
		t.Run("no key/"+name, func(t *testing.T) {
			check(t, "GET", rest)
			check(t, "DELETE", rest)
		})
	}
}

func TestOtherMethodsAreToldWhichThereAre(t *testing.T) {
	s := newService(t)
	id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
	for _, test := range []struct{ rest, allow, methods string }{
		{"", "GET, HEAD, POST", "PUT PATCH DELETE OPTIONS TRACE CONNECT get post PROPFIND"},
		{"/" + id, "DELETE, GET, HEAD, PATCH", "POST PUT OPTIONS TRACE CONNECT delete"},
		{"/nonsense", "DELETE, GET, HEAD, PATCH", "POST"},
	} {
		for method := range strings.FieldsSeq(test.methods) {
			t.Run(method+test.rest, func(t *testing.T) {
				r := httptest.NewRequest("GET", mount+test.rest, nil)
				r.Method = method
				a := s.send(t, alice, r)
				if a.status != 405 || a.reason() != "method_not_allowed" || a.header.Get("Allow") != test.allow {
					t.Errorf("%d %s, Allow %q", a.status, a.reason(), a.header.Get("Allow"))
				}
			})
		}
	}
}

func TestHeadIsGetWithoutItsBody(t *testing.T) {
	s := newService(t)
	id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveAs(w, r, alice) }))
	defer server.Close()
	for _, rest := range []string{"", "/" + id, "/none", "?limit=0"} {
		var status [2]int
		var header [2]http.Header
		for i, method := range []string{"GET", "HEAD"} {
			r, _ := http.NewRequest(method, server.URL+mount+rest, nil)
			response, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			checkAnswer(t, method, response.StatusCode, response.Header, body)
			response.Header.Del("Date")
			status[i], header[i] = response.StatusCode, response.Header
		}
		if status[0] != status[1] || fmt.Sprint(header[0]) != fmt.Sprint(header[1]) {
			t.Errorf("%q: GET %d %v, HEAD %d %v", rest, status[0], header[0], status[1], header[1])
		}
	}
}

// untouched is a body that must not be read.
type untouched struct{ t *testing.T }

func (b untouched) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
}

func TestStrangerIsRefusedBeforeAnythingElse(t *testing.T) {
	s := newService(t)
	s.handler.Keyring = func() (*apikey.Keyring, error) {
		t.Error("the Keyring was asked for")
		return nil, apikey.ErrUnavailable
	}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS", "PATCH"} {
		for _, rest := range []string{"", "/", "/none", "/a/b"} {
			r := httptest.NewRequest(method, mount+rest, untouched{t})
			w := httptest.NewRecorder()
			s.handler.Serve(w, r, management.Call{Rest: rest, RequestID: "req-1", Caller: func() (apikey.Principal, *management.Refusal) {
				return alice, management.InvalidToken("keys")
			}})
			a := checkAnswer(t, method, w.Code, w.Header(), w.Body.Bytes())
			if a.status != 401 || a.header.Get("WWW-Authenticate") != `Bearer realm="keys", error="invalid_token"` {
				t.Errorf("%s %q: %d %v", method, rest, a.status, a.header)
			}
		}
	}
}

func TestWritesThatSomebodyElseMayHaveCausedAreRefused(t *testing.T) {
	early := &tls.ConnectionState{HandshakeComplete: false}
	late := &tls.ConnectionState{HandshakeComplete: true}
	for name, test := range map[string]struct {
		method, rest string
		site         []string
		tls          *tls.ConnectionState
		status       int
	}{
		"create from another site":       {"POST", "", []string{"cross-site"}, nil, 403},
		"revoke from another site":       {"DELETE", "/ID", []string{"cross-site"}, nil, 403},
		"unknown method, another site":   {"PUT", "", []string{"cross-site"}, nil, 403},
		"another site in capitals":       {"POST", "", []string{"Cross-Site"}, nil, 403},
		"another site in a second line":  {"POST", "", []string{"same-origin", "cross-site"}, nil, 403},
		"read from another site":         {"GET", "", []string{"cross-site"}, nil, 200},
		"create from the same site":      {"POST", "", []string{"same-site"}, nil, 200},
		"create from the same origin":    {"POST", "", []string{"same-origin"}, nil, 200},
		"create by the user's own hand":  {"POST", "", []string{"none"}, nil, 200},
		"create in TLS early data":       {"POST", "", nil, early, 425},
		"revoke in TLS early data":       {"DELETE", "/ID", nil, early, 425},
		"read in TLS early data":         {"GET", "", nil, early, 200},
		"HEAD in TLS early data":         {"HEAD", "", nil, early, 200},
		"create after the TLS handshake": {"POST", "", nil, late, 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
			r := httptest.NewRequest(test.method, mount+strings.Replace(test.rest, "ID", id, 1), strings.NewReader(`{"name":"second"}`))
			r.Header["Sec-Fetch-Site"] = test.site
			r.Header.Set("Content-Type", "application/json")
			r.TLS = test.tls
			if a := s.send(t, alice, r); a.status != test.status {
				t.Errorf("%d %s, want %d", a.status, a.message, test.status)
			}
			keys := s.call(t, alice, "GET", "", "").data["items"].([]any)
			if written := len(keys) > 1 || keys[0].(map[string]any)["revokedAt"] != nil; written != (test.status == 200 && test.method == "POST") {
				t.Errorf("keys after a %d: %v", test.status, keys)
			}
		})
	}
}

func TestStoreFaultIsAnsweredAndItsCauseStaysInTheLog(t *testing.T) {
	disk := errors.New("pwrite /var/lib/secret-path: disk on fire")
	for name, test := range map[string]struct {
		keyring, store error
		status         int
		reason         string
	}{
		"no open Keyring":       {keyring: fmt.Errorf("opening: %w: %w", apikey.ErrUnavailable, disk), status: 503, reason: "store_unavailable"},
		"store unavailable":     {store: fmt.Errorf("%w: %w", apikey.ErrUnavailable, disk), status: 503, reason: "store_unavailable"},
		"outcome unknown":       {store: fmt.Errorf("%w: %w", apikey.ErrOutcomeUnknown, disk), status: 503, reason: "outcome_unknown"},
		"error of another kind": {keyring: disk, status: 500, reason: "internal_error"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
			if test.keyring != nil {
				s.handler.Keyring = func() (*apikey.Keyring, error) { return nil, test.keyring }
			} else {
				s.store.breakWith(test.store)
			}
			for _, call := range [][2]string{{"POST", ""}, {"GET", ""}, {"GET", "/" + id}, {"DELETE", "/" + id}} {
				s.logged = nil
				a := s.call(t, alice, call[0], call[1], `{"name":"second"}`)
				if a.status != test.status || a.reason() != test.reason {
					t.Errorf("%v: %d %s", call, a.status, a.reason())
				}
				if after := a.header.Get("Retry-After"); (after != "") != (a.status == 503) {
					t.Errorf("%v: Retry-After %q", call, after)
				}
				if strings.Contains(a.bytes, "fire") || strings.Contains(a.bytes, "/var/") {
					t.Errorf("%v: the cause is in the answer: %s", call, a.bytes)
				}
				if len(s.logged) != 1 || !errors.Is(s.logged[0], disk) {
					t.Errorf("%v: logged %v", call, s.logged)
				}
			}
		})
	}
}

func TestClientThatLeftIsNotAFaultInTheLog(t *testing.T) {
	s := newService(t)
	s.store.breakWith(context.Canceled)
	if a := s.call(t, alice, "POST", "", `{"name":"first"}`); a.status != 503 || len(s.logged) != 0 {
		t.Errorf("%d, logged %v", a.status, s.logged)
	}
}

func TestRefusalsAreNotLogged(t *testing.T) {
	s := newService(t)
	s.call(t, alice, "POST", "", `{}`)
	s.call(t, alice, "GET", "/none", "")
	s.call(t, reader, "GET", "", "")
	if len(s.logged) != 0 {
		t.Errorf("logged %v", s.logged)
	}
}
