package management_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
	"github.com/caddy-apikeys/caddy-apikeys/management/traffic"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

const mount = "/v1/api-keys"

var (
	alice    = apikey.Principal{OrganizationID: "acme", UserID: "alice", Scope: apikey.ScopeReadWrite}
	bot      = apikey.Principal{OrganizationID: "acme", ServiceAccountID: "bot", Scope: apikey.ScopeReadWrite}
	reader   = apikey.Principal{OrganizationID: "acme", UserID: "rita", Scope: apikey.ScopeRead}
	mallory  = apikey.Principal{OrganizationID: "globex", UserID: "mallory", Scope: apikey.ScopeReadWrite}
	operator = apikey.Operator("acme")
)

// service is the API over a real Keyring, without a mount in front: who is
// calling is said by the test.
type service struct {
	handler management.Handler
	ring    *apikey.Keyring
	store   *faultyStore
	logged  []error
}

func newService(t testing.TB) *service {
	t.Helper()
	s := &service{store: &faultyStore{Store: storagetest.NewMemory()}}
	// Every look at the clock is a millisecond after the one before, so that
	// keys have an order.
	var looks atomic.Int64
	clock := func() time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(looks.Add(1)) * time.Millisecond)
	}
	ring, err := apikey.Open(s.store, apikey.Settings{Capacity: 1 << 10, Clock: clock}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ring.Close() })
	s.ring = ring
	s.handler = management.Handler{
		Keyring: func() (*apikey.Keyring, error) { return s.ring, nil },
		Realm:   "keys",
		Log:     func(_ *http.Request, _ string, cause error) { s.logged = append(s.logged, cause) },
	}
	return s
}

// serveAs answers a request for a path under the mount.
func (s *service) serveAs(w http.ResponseWriter, r *http.Request, who apikey.Principal) {
	s.handler.Serve(w, r, management.Call{
		Rest:      strings.TrimPrefix(r.URL.Path, mount),
		RequestID: "req-1",
		Caller:    func() (apikey.Principal, *management.Refusal) { return who, nil },
	})
}

// call sends a request with a JSON body, and the answer through checkAnswer.
func (s *service) call(t testing.TB, who apikey.Principal, method, rest, body string) answer {
	t.Helper()
	r := httptest.NewRequest(method, mount+rest, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return s.send(t, who, r)
}

func (s *service) send(t testing.TB, who apikey.Principal, r *http.Request) answer {
	t.Helper()
	var sent bytes.Buffer
	r.Body = io.NopCloser(io.TeeReader(r.Body, &sent))
	w := httptest.NewRecorder()
	s.serveAs(w, r, who)
	if !who.Operator { // whose calls have more fields
		traffic.Write(t, r, sent.Bytes(), w.Code, w.Result().Header, w.Body.Bytes())
	}
	return checkAnswer(t, r.Method, w.Result().StatusCode, w.Result().Header, w.Body.Bytes())
}

// mustCreate makes a key and returns its record.
func (s *service) mustCreate(t testing.TB, who apikey.Principal, body string) map[string]any {
	t.Helper()
	a := s.call(t, who, "POST", "", body)
	if a.status != http.StatusOK {
		t.Fatalf("create %s: %d %s", body, a.status, a.message)
	}
	return a.data
}

// answer is a decoded envelope. To HEAD it has the status and headers only.
type answer struct {
	status  int
	header  http.Header
	bytes   string
	data    map[string]any
	message string
}

func (a answer) reason() string { s, _ := a.data["reason"].(string); return s }
func (a answer) field() string  { s, _ := a.data["field"].(string); return s }

// checkAnswer checks what is promised of every answer.
func checkAnswer(t testing.TB, method string, status int, header http.Header, body []byte) answer {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Authorization",
	} {
		if got := header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	a := answer{status: status, header: header, bytes: string(body)}
	if method == http.MethodHead {
		if len(body) != 0 {
			t.Errorf("HEAD has a body: %s", body)
		}
		return a
	}
	var raw map[string]json.RawMessage
	var e struct {
		Code      int
		Data      map[string]any
		Message   string
		RequestID string
	}
	if json.Unmarshal(body, &raw) != nil || json.Unmarshal(body, &e) != nil || len(raw) != 4 || e.Data == nil {
		t.Fatalf("not the envelope: %s", body)
	}
	if e.Code != status || e.RequestID != "req-1" || e.Message == "" || (status == http.StatusOK) != (e.Message == "success") {
		t.Errorf("envelope of a %d is %s", status, body)
	}
	a.data, a.message = e.Data, e.Message
	if _, ok := a.data["reason"].(string); ok == (status == http.StatusOK) {
		t.Errorf("reason in a %d: %s", status, body)
	}
	return a
}

// faultyStore fails every call with an error, once it has one.
type faultyStore struct {
	apikey.Store
	fault atomic.Pointer[error]
}

func (s *faultyStore) breakWith(err error) { s.fault.Store(&err) }

func (s *faultyStore) View(ctx context.Context, fn func(apikey.Reader) error) error {
	if fault := s.fault.Load(); fault != nil {
		return *fault
	}
	return s.Store.View(ctx, fn)
}

func (s *faultyStore) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if fault := s.fault.Load(); fault != nil {
		return *fault
	}
	return s.Store.Update(ctx, fn)
}
