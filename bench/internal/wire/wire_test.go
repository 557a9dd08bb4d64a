package wire

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRequestsFollowEachOtherOnOneConnection(t *testing.T) {
	clients := make(map[string]bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clients[r.RemoteAddr] = true
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Authorization"), string(body)}, " "))
	}))
	defer server.Close()
	c, err := Dial(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		status, answer, err := c.Do("POST", "/v1/api-keys", "secret", `{"name":"n"}`)
		if want := `POST /v1/api-keys Bearer secret {"name":"n"}`; err != nil || status != http.StatusTeapot || string(answer) != want {
			t.Fatalf("got %d %q, %v; want %q", status, answer, err, want)
		}
	}
	if len(clients) != 1 {
		t.Errorf("the server saw %d connections", len(clients))
	}
}

func TestAConnectionThatBreaksIsAnError(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer server.Close()
	c, err := Dial(strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if status, _, err := c.Do("GET", "/", "", ""); err == nil {
		t.Errorf("status %d", status)
	}
}
