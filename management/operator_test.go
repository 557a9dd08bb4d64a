package management_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func importLine(token, more string) string {
	return `{"hash":"` + hash(token) + `","algorithm":"sha256","name":"legacy","organizationId":"acme","userId":"carol"` + more + "}\n"
}

var importer = apikey.Principal{Operator: true, Scope: apikey.ScopeReadWrite, RequestID: "req-1"}

func (s *service) importing(t testing.TB, query, body string) answer {
	t.Helper()
	r := httptest.NewRequest("POST", "/import"+query, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-ndjson")
	w := httptest.NewRecorder()
	s.handler.ServeImport(w, r, importer)
	return checkAnswer(t, "POST", w.Code, w.Header(), w.Body.Bytes())
}

func TestImportReportsLinesByNumber(t *testing.T) {
	s := newService(t)
	body := importLine("one", "") + "\n" + importLine("one", "") + "not json\n" + importLine("two", `,"expires_at":"x"`) +
		importLine("two", `,"scope":"admin"`) + importLine("two", `,"expiresAt":"2020-01-01T00:00:00Z"`) +
		`{"hash":"zz","algorithm":"sha256","name":"n","organizationId":"acme","userId":"u"}` + "\n" +
		`{"hash":"ab","algorithm":"sha256","name":"n","organizationId":"acme","userId":"u"}` + "\n" + "{}\n" +
		strings.TrimSuffix(importLine("last", `,"scope":"read-write","expiresAt":"2099-01-01T00:00:00Z"`), "\n")
	for _, query := range []string{"?dry_run=true", "", "?dry_run=false"} {
		a := s.importing(t, query, body)
		if a.status != 200 {
			t.Fatal(a.bytes)
		}
		var refused []string
		for _, line := range a.data["refused"].([]any) {
			l := line.(map[string]any)
			refused = append(refused, fmt.Sprint(l["line"], " ", l["field"]))
			if strings.Contains(l["message"].(string), "body") {
				t.Errorf("%s: %s is said of a line", query, l["message"])
			}
		}
		imported, duplicates := 2.0, "[3]"
		if query == "?dry_run=false" {
			imported, duplicates = 0, "[1 3 11]"
		}
		if got := strings.Join(refused, ", "); got != "4 <nil>, 5 expires_at, 6 scope, 7 expiresAt, 8 hash, 9 hash, 10 hash" {
			t.Errorf("%s: refused %s", query, got)
		}
		if a.data["imported"] != imported || fmt.Sprint(a.data["duplicates"]) != duplicates {
			t.Errorf("%s: %s", query, a.bytes)
		}
		if strings.Contains(a.bytes, hash("one")) {
			t.Error("a hash is in the answer")
		}
		v, err := s.ring.Verify(t.Context(), "last")
		if err != nil || v.Allowed() == (query == "?dry_run=true") {
			t.Errorf("%s: %s, %v", query, v.Reason, err)
		}
	}
}

func TestImportBeyondTheLimitIsRefusedLineByLine(t *testing.T) {
	s := newService(t)
	var err error
	if s.ring, err = s.ring.With(apikey.Policy{MaxKeys: 2}, nil); err != nil {
		t.Fatal(err)
	}
	s.mustCreate(t, alice, `{"name":"n"}`)
	body := importLine("one", "") + strings.Replace(importLine("two", ""), "acme", "globex", 1) + importLine("three", "") + "{}\n"
	for _, test := range []struct{ query, room string }{{"?dry_run=true", "map[acme:1 globex:2]"}, {"", "<nil>"}} {
		a := s.importing(t, test.query, body)
		refused := a.data["refused"].([]any)[0].(map[string]any)
		if a.data["imported"] != 2.0 || fmt.Sprint(a.data["room"]) != test.room || refused["line"] != 3.0 || refused["message"] != management.KeyLimit().Message {
			t.Errorf("%q: %s", test.query, a.bytes)
		}
	}
}

func TestImportThatIsNotUnderstoodIsRefused(t *testing.T) {
	s := newService(t)
	for query, reason := range map[string]string{"?dry_run=1": "invalid_parameter", "?dry_run": "invalid_parameter", "?dry_run=true&dry_run=false": "invalid_parameter",
		"?dry_run=true;": "invalid_parameter", "?dryrun=true": "unknown_parameter", "?dry_run=true&x=": "unknown_parameter"} {
		if a := s.importing(t, query, importLine("one", "")); a.status != 400 || a.reason() != reason {
			t.Errorf("%s: %d %s", query, a.status, a.bytes)
		}
	}
	for _, test := range []struct {
		method, kind, body string
		status             int
	}{{"GET", "application/x-ndjson", "", 405}, {"POST", "application/json", "{}", 415}, {"POST", "application/x-ndjson", strings.Repeat("x", 4<<20+1), 413}} {
		r := httptest.NewRequest(test.method, "/import", strings.NewReader(test.body))
		r.Header.Set("Content-Type", test.kind)
		w := httptest.NewRecorder()
		s.handler.ServeImport(w, r, importer)
		if a := checkAnswer(t, test.method, w.Code, w.Header(), w.Body.Bytes()); a.status != test.status {
			t.Errorf("%+v: %d", test.kind, a.status)
		}
	}
	if v, _ := s.ring.Verify(t.Context(), "one"); v.Allowed() {
		t.Error("imported all the same")
	}
	s.store.breakWith(apikey.ErrUnavailable)
	if a := s.importing(t, "", importLine("one", "")); a.status != 503 {
		t.Errorf("%d", a.status)
	}
}

func TestExportShowsHashesOnlyWhenAsked(t *testing.T) {
	s := newService(t)
	ids := map[string]bool{}
	for range 3 {
		ids[s.mustCreate(t, alice, `{"name":"n"}`)["id"].(string)] = true
	}
	s.importing(t, "", importLine("one", ""))
	for query, hashes := range map[string]bool{"": false, "?hashes=false": false, "?hashes=true": true} {
		w := httptest.NewRecorder()
		s.handler.ServeExport(w, httptest.NewRequest("GET", "/export"+query, nil), "req-1")
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/x-ndjson" || len(lines) != 4 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		seen := 0
		for _, line := range lines {
			var key map[string]any
			if err := json.Unmarshal([]byte(line), &key); err != nil {
				t.Fatal(err)
			}
			if ids[key["id"].(string)] {
				seen++
			}
			if (key["hash"] != nil) != hashes || (key["algorithm"] != nil) != hashes || key["key"] != nil {
				t.Errorf("%s: %s", query, line)
			}
		}
		if seen != 3 {
			t.Errorf("%d of the keys", seen)
		}
	}
	w := httptest.NewRecorder()
	s.handler.ServeExport(w, httptest.NewRequest("POST", "/export", nil), "req-1")
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
	s.store.breakWith(fmt.Errorf("%w: %w", apikey.ErrUnavailable, errors.New("disk")))
	w = httptest.NewRecorder()
	s.handler.ServeExport(w, httptest.NewRequest("GET", "/export", nil), "req-1")
	if a := checkAnswer(t, "GET", w.Code, w.Header(), w.Body.Bytes()); a.status != 503 {
		t.Errorf("without the store: %d", a.status)
	}
}

func TestStatsCountKeys(t *testing.T) {
	s := newService(t)
	s.mustCreate(t, alice, `{"name":"n"}`)
	s.call(t, alice, "DELETE", "/"+s.mustCreate(t, alice, `{"name":"n"}`)["id"].(string), "")
	stats := func() answer {
		w := httptest.NewRecorder()
		s.handler.ServeStats(w, httptest.NewRequest("GET", "/stats", nil), "req-1")
		return checkAnswer(t, "GET", w.Code, w.Header(), w.Body.Bytes())
	}
	if a := stats(); a.status != 200 || a.data["keys"] != 2.0 || a.data["revoked"] != 1.0 {
		t.Errorf("%d %s", a.status, a.bytes)
	}
	s.store.breakWith(apikey.ErrUnavailable)
	if a := stats(); a.status != 503 || a.reason() != "store_unavailable" {
		t.Errorf("%d %s", a.status, a.bytes)
	}
}
