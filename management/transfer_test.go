package management_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestOnlyPlainJSONIsTaken(t *testing.T) {
	const plain = "application/json"
	for name, test := range map[string]struct {
		types, codings []string
		status         int
	}{
		"plain":                 {[]string{plain}, nil, 200},
		"capitals":              {[]string{"Application/JSON"}, nil, 200},
		"utf-8":                 {[]string{plain + "; charset=utf-8"}, nil, 200},
		"UTF-8":                 {[]string{plain + ";charset=UTF-8"}, nil, 200},
		"quoted utf-8":          {[]string{plain + `; charset="utf-8"`}, nil, 200},
		"identity":              {[]string{plain}, []string{"identity"}, 200},
		"none":                  {nil, nil, 415},
		"empty":                 {[]string{""}, nil, 415},
		"twice":                 {[]string{plain, plain}, nil, 415},
		"list":                  {[]string{plain + ", text/plain"}, nil, 415},
		"utf-16":                {[]string{plain + "; charset=utf-16"}, nil, 415},
		"other parameter":       {[]string{plain + "; profile=x"}, nil, 415},
		"parameter of UTF-8":    {[]string{plain + "; profile=utf-8"}, nil, 415},
		"two parameters":        {[]string{plain + "; charset=utf-8; q=1"}, nil, 415},
		"empty parameters":      {[]string{plain + ";;"}, nil, 415},
		"broken parameter":      {[]string{plain + "; charset"}, nil, 415},
		"problem+json":          {[]string{"application/problem+json"}, nil, 415},
		"text":                  {[]string{"text/plain"}, nil, 415},
		"form":                  {[]string{"application/x-www-form-urlencoded"}, nil, 415},
		"multipart":             {[]string{"multipart/form-data; boundary=x"}, nil, 415},
		"text with a json word": {[]string{"text/plain; x=application/json"}, nil, 415},
		"gzip":                  {[]string{plain}, []string{"gzip"}, 415},
		"br":                    {[]string{plain}, []string{"br"}, 415},
		"gzip in a list":        {[]string{plain}, []string{"identity, gzip"}, 415},
		"gzip in a second line": {[]string{plain}, []string{"identity", "gzip"}, 415},
		"empty coding":          {[]string{plain}, []string{""}, 415},
	} {
		t.Run(name, func(t *testing.T) {
			for _, body := range []string{`{"name":"first"}`, ""} {
				r := httptest.NewRequest("POST", mount, strings.NewReader(body))
				r.Header["Content-Type"], r.Header["Content-Encoding"] = test.types, test.codings
				want := test.status
				if body == "" && want == 200 {
					want = 400 // there is nothing in it, but it came the right way
				}
				a := newService(t).send(t, alice, r)
				if a.status != want || (want == 415) != (a.reason() == "unsupported_media_type") {
					t.Errorf("body %q: %d %s, want %d", body, a.status, a.reason(), want)
				}
			}
		})
	}
}

func TestBodyIsReadToItsLimitAndNotFurther(t *testing.T) {
	padded := func(size int) string {
		const body = `{"name":"first"}`
		return body + strings.Repeat(" ", size-len(body))
	}
	for name, test := range map[string]struct {
		body   string
		length int64 // what Content-Length claims; -1 is chunked
		status int
	}{
		"at the limit":               {padded(16 << 10), 16 << 10, 200},
		"chunked, at the limit":      {padded(16 << 10), -1, 200},
		"a byte over":                {padded(16<<10 + 1), 16<<10 + 1, 413},
		"chunked, a byte over":       {padded(16<<10 + 1), -1, 413},
		"10 MB":                      {padded(10 << 20), 10 << 20, 413},
		"chunked, 10 MB":             {padded(10 << 20), -1, 413},
		"10 MB that claim 10 bytes":  {padded(10 << 20), 10, 413},
		"10 bytes that claim 10 MB":  {padded(16), 10 << 20, 413},
		"10 MB that are not JSON":    {strings.Repeat("x", 10<<20), -1, 413},
		"10 MB of opening brackets":  {`{"name":` + strings.Repeat("[", 10<<20), -1, 413},
		"10 MB in one unended name":  {`{"` + strings.Repeat("a", 10<<20), -1, 413},
		"an empty body in one chunk": {"", -1, 400},
	} {
		t.Run(name, func(t *testing.T) {
			body := &counted{Reader: strings.NewReader(test.body)}
			r := httptest.NewRequest("POST", mount, body)
			r.ContentLength = test.length
			r.Header.Set("Content-Type", "application/json")
			if a := newService(t).send(t, alice, r); a.status != test.status {
				t.Errorf("%d %s, want %d", a.status, a.message, test.status)
			}
			if body.n > 20<<10 {
				t.Errorf("%d bytes were read", body.n)
			}
		})
	}
}

type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func TestLargeBodyDoesNotHoldUpTheServer(t *testing.T) {
	s := newService(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveAs(w, r, alice) }))
	defer server.Close()
	for name, head := range map[string]string{
		"waits to be asked for it": "Content-Type: application/json\r\nContent-Length: 100000000\r\nExpect: 100-continue\r\n",
		"never sends it":           "Content-Type: application/json\r\nContent-Length: 100000000\r\n",
		"of another media type":    "Content-Type: text/plain\r\nContent-Length: 10\r\nExpect: 100-continue\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second)) // a server that waits would do so for ever
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n", mount, head)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			if a := checkAnswer(t, "POST", response.StatusCode, response.Header, body); a.status != 413 && a.status != 415 {
				t.Errorf("%d %s", a.status, a.message)
			}
		})
	}
}

func TestBodyThatEndsEarlyCreatesNothing(t *testing.T) {
	s := newService(t)
	r := httptest.NewRequest("POST", mount, io.MultiReader(bytes.NewReader([]byte(`{"name":"first"}`)), failing{}))
	r.Header.Set("Content-Type", "application/json")
	if a := s.send(t, alice, r); a.status != 400 || a.reason() != "invalid_body" {
		t.Errorf("%d %s", a.status, a.reason())
	}
	if keys := s.call(t, alice, "GET", "", "").data["items"].([]any); len(keys) != 0 {
		t.Errorf("keys: %v", keys)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
