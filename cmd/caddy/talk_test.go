package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
)

// reload loads a Caddyfile by force, even if nothing has changed.
func (g *gateway) reload(caddyfile string) error {
	header := http.Header{"Content-Type": {"text/caddyfile"}, "Cache-Control": {"must-revalidate"}}
	status, body, err := g.ask(http.MethodPost, "/load", header, caddyfile)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("HTTP %d: %s", status, body)
	}
	if err == nil {
		g.settle()
	}
	return err
}

// settle waits, where Linux tells, until only the configuration that was loaded last
// takes connections: Caddy has a socket for each, and says that it has loaded one while
// that of the last but one may still be open.
func (g *gateway) settle() {
	g.t.Helper()
	port := netip.MustParseAddrPort(strings.TrimPrefix(g.url, "http://")).Port()
	listening := regexp.MustCompile(fmt.Sprintf(`:%04X 0+:0000 0A`, port))
	waitFor(g.t, "one socket to listen", func() bool {
		n := 0
		for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			sockets, _ := os.ReadFile(file)
			n += len(listening.FindAll(sockets, -1))
		}
		return n <= 1
	})
}

// ask calls the admin endpoint.
func (g *gateway) ask(method, path string, header http.Header, body string) (status int, answer []byte, err error) {
	host := g.admin
	if strings.HasPrefix(host, "unix/") {
		host = "127.0.0.1"
	}
	req, err := http.NewRequest(method, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := g.operator.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// get asks the admin endpoint for what must be there.
func (g *gateway) get(path string) string {
	g.t.Helper()
	status, body, err := g.ask(http.MethodGet, path, nil, "")
	if err != nil || status != http.StatusOK {
		g.t.Fatalf("GET %s of the admin endpoint: HTTP %d, %v, %s", path, status, err, body)
	}
	return string(body)
}

// envelope is an answer as the contract fixes it; all of data are strings.
type envelope struct {
	Code      int               `json:"code"`
	Data      map[string]string `json:"data"`
	Message   string            `json:"message"`
	RequestID string            `json:"requestId"`
}

func decode(t testing.TB, body []byte) (e envelope) {
	t.Helper()
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	if err := in.Decode(&e); err != nil {
		t.Fatalf("not an envelope: %v: %s", err, body)
	}
	if e.RequestID == "" || e.Message == "" {
		t.Errorf("the envelope lacks requestId or message: %s", body)
	}
	return e
}

// issue makes a key of alice of acme as the operator.
func (g *gateway) issue(fields map[string]string) map[string]string {
	g.t.Helper()
	body := map[string]string{"userId": "alice", "name": "test"}
	maps.Copy(body, fields)
	text, err := json.Marshal(body)
	if err != nil {
		g.t.Fatal(err)
	}
	status, answer, err := g.ask(http.MethodPost, "/api_keys/organizations/acme/keys", http.Header{"Content-Type": {"application/json"}}, string(text))
	if err != nil || status != http.StatusOK {
		g.t.Fatalf("issuing a key: HTTP %d, %v, %s", status, err, answer)
	}
	data := decode(g.t, answer).Data
	g.keepSecret(data["key"])
	return data
}

// look returns a key as the operator sees it.
func (g *gateway) look(id string) map[string]string {
	g.t.Helper()
	return decode(g.t, []byte(g.get("/api_keys/keys/"+id))).Data
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request to the site with headers, "Name: value", spelled as given.
func (g *gateway) do(method, path, body string, headers ...string) answer {
	g.t.Helper()
	req, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header[name] = append(req.Header[name], value)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

const asJSON = "Content-Type: application/json"

// bearer is the header that presents a key.
func bearer(key map[string]string) string { return "Authorization: Bearer " + key["key"] }

// send sends a request to the site, with a key if token is not empty.
func (g *gateway) send(method, path, token, body string) answer {
	g.t.Helper()
	var headers []string
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	if body != "" {
		headers = append(headers, asJSON)
	}
	return g.do(method, path, body, headers...)
}

// requireRefused checks that a request was refused for a reason.
func (g *gateway) requireRefused(a answer, status int, reason string) {
	g.t.Helper()
	if e := decode(g.t, a.body); a.status != status || e.Code != status || e.Data["reason"] != reason {
		g.t.Errorf("HTTP %d: %s, want %d %s", a.status, a.body, status, reason)
	}
}

// requireKey checks that a request was answered with a key, and returns it.
func (g *gateway) requireKey(a answer) map[string]string {
	g.t.Helper()
	e := decode(g.t, a.body)
	if a.status != http.StatusOK || e.Code != http.StatusOK {
		g.t.Fatalf("HTTP %d: %s", a.status, a.body)
	}
	if e.Data["key"] != "" {
		g.keepSecret(e.Data["key"])
	}
	return e.Data
}

// requireStatus sends a request and checks how it was answered.
func (g *gateway) requireStatus(want int, method, path, token string) {
	g.t.Helper()
	if got := g.send(method, path, token, ""); got.status != want {
		g.t.Errorf("%s %s: HTTP %d, want %d: %s", method, path, got.status, want, got.body)
	}
}
