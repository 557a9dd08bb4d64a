package management_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// over serves one call of the operator from a Keyring, over a connection.
func over(t *testing.T, ring *apikey.Keyring, serve func(*management.Handler, http.ResponseWriter, *http.Request)) (url string, logged *[]error) {
	t.Helper()
	logged = new([]error)
	h := management.Handler{
		Keyring: func() (*apikey.Keyring, error) { return ring, nil },
		Log:     func(_ *http.Request, _ string, cause error) { *logged = append(*logged, cause) },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(&h, w, r) }))
	t.Cleanup(server.Close)
	return server.URL, logged
}

func serveBackup(h *management.Handler, w http.ResponseWriter, r *http.Request) {
	h.ServeBackup(w, r, "req-1")
}

func serveCheck(h *management.Handler, w http.ResponseWriter, r *http.Request) {
	h.ServeCheck(w, r, "req-1")
}

func ask(t *testing.T, method, url string) (resp *http.Response, body []byte, cut error) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err = http.DefaultClient.Do(req); err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, cut = io.ReadAll(resp.Body)
	return resp, body, cut
}

func TestADriverThatCannotCopyItsStoreSaysSo(t *testing.T) {
	s := newService(t)
	url, _ := over(t, s.ring, serveBackup)
	resp, body, err := ask(t, "GET", url)
	if err != nil {
		t.Fatal(err)
	}
	if a := checkAnswer(t, "GET", resp.StatusCode, resp.Header, body); a.status != 501 || a.reason() != "not_supported" {
		t.Errorf("%d %s", a.status, body)
	}
}

func TestABackupHasAllItsBytesAndOnlyGetIsTaken(t *testing.T) {
	store, err := boltstore.Open(filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := apikey.Open(store, apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	url, _ := over(t, ring, serveBackup)
	resp, body, err := ask(t, "GET", url)
	if err != nil || resp.StatusCode != 200 || resp.ContentLength != int64(len(body)) || len(body) == 0 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v, %v, %d bytes", err, resp, len(body))
	}
	for _, serve := range []func(*management.Handler, http.ResponseWriter, *http.Request){serveBackup, serveCheck} {
		url, _ := over(t, ring, serve)
		if resp, _, err := ask(t, "POST", url); err != nil || resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET" {
			t.Errorf("POST: %v, %v", resp, err)
		}
	}
	ring.Close()
	resp, body, err = ask(t, "GET", url)
	if err != nil {
		t.Fatal(err)
	}
	if a := checkAnswer(t, "GET", resp.StatusCode, resp.Header, body); a.status != 503 || a.reason() != "store_unavailable" {
		t.Errorf("of a closed store: %d %s", a.status, body)
	}
}

// slowWriter takes a time for each write, and fails when a deadline is missed.
type slowWriter struct {
	*httptest.ResponseRecorder
	takes    time.Duration
	deadline time.Time
}

func (w *slowWriter) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }

func (w *slowWriter) Write(b []byte) (int, error) {
	time.Sleep(w.takes)
	if !w.deadline.IsZero() && time.Now().After(w.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return w.ResponseRecorder.Write(b)
}

func TestASlowClientOfABackupIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	for takes, whole := range map[time.Duration]bool{0: true, 5 * time.Second: true, 20 * time.Second: false, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			store, err := boltstore.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			ring, err := apikey.Open(store, apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ring.Close()
			h := management.Handler{Keyring: func() (*apikey.Keyring, error) { return ring, nil }}
			w := &slowWriter{ResponseRecorder: httptest.NewRecorder(), takes: takes}
			defer func() {
				if got := recover() == nil; got != whole {
					t.Errorf("a client that takes %s for a piece has all of it: %v, want %v", takes, got, whole)
				}
			}()
			h.ServeBackup(w, httptest.NewRequest("GET", "/", nil), "req-1")
		})
	}
}

func TestACheckTellsEachFaultAndEndsWithAResult(t *testing.T) {
	s := newService(t)
	made := s.mustCreate(t, alice, `{"name":"first"}`)
	id, _ := apikey.ParseID(made["id"].(string))
	url, logged := over(t, s.ring, serveCheck)
	last := func(body []byte) (lines int, line map[string]any) {
		all := strings.Split(strings.TrimSpace(string(body)), "\n")
		if err := json.Unmarshal([]byte(all[len(all)-1]), &line); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return len(all), line
	}
	_, body, err := ask(t, "GET", url)
	if _, line := last(body); err != nil || fmt.Sprint(line["result"]) != "map[faults:0 keys:1 revoked:0]" {
		t.Errorf("%v, %s", err, body)
	}
	if err := s.store.Update(t.Context(), func(tx apikey.Tx) error { return tx.Put(apikey.TableKeys, id[:], []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	_, body, err = ask(t, "GET", url)
	if _, line := last(body); err != nil || !strings.Contains(fmt.Sprint(line["result"]), "keys:1") || strings.Contains(fmt.Sprint(line["result"]), "faults:0") ||
		!strings.Contains(string(body), `"table":"keys","key":"`+id.String()+`"`) {
		t.Errorf("%v, %s", err, body)
	}

	s.store.breakWith(fmt.Errorf("%w: the disk is gone", apikey.ErrUnavailable))
	resp, body, err := ask(t, "GET", url)
	if err != nil {
		t.Fatal(err)
	}
	if a := checkAnswer(t, "GET", resp.StatusCode, resp.Header, body); a.status != 503 {
		t.Errorf("%d %s", a.status, body)
	}
	if len(*logged) != 1 || !errors.Is((*logged)[0], apikey.ErrUnavailable) {
		t.Errorf("logged %v", *logged)
	}
}
