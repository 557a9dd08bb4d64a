// Package traffic writes down what tests say to the management API and what it
// answers, so that tools/openapi can hold both against openapi.yaml. Only tests
// of this project use it.
package traffic

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Folder is the environment variable that names the folder to write to. Without
// it nothing is written down.
const Folder = "API_KEYS_TRAFFIC"

// base is the path of the API where tests configure no other.
const base = "/v1/api-keys"

// Exchange is a request and its answer, a line of JSON in the record.
type Exchange struct {
	Test    string
	Request struct {
		Method, URL string
		Header      http.Header
		Body        []byte
	}
	Answer struct {
		Status int
		Header http.Header
		Body   []byte
	}
}

// Record returns the transport with every exchange with the API written down, or
// as it is where nothing is to be. It reads bodies whole.
func Record(t testing.TB, transport http.RoundTripper) http.RoundTripper {
	if os.Getenv(Folder) == "" {
		return transport
	}
	return &recorder{transport, t}
}

type recorder struct {
	through http.RoundTripper
	t       testing.TB
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(req.URL.Path, base) {
		return r.through.RoundTrip(req)
	}
	var sent []byte
	if req.Body != nil {
		var err error
		sent, err = io.ReadAll(req.Body)
		req.Body.Close()
		if err != nil {
			return nil, err
		}
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := r.through.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	Write(r.t, req, sent, resp.StatusCode, resp.Header, got)
	return resp, nil
}

// CloseIdleConnections closes those of the transport.
func (r *recorder) CloseIdleConnections() {
	(&http.Client{Transport: r.through}).CloseIdleConnections()
}

// Write writes an exchange down, if any is to be.
func Write(t testing.TB, r *http.Request, sent []byte, status int, header http.Header, got []byte) {
	if os.Getenv(Folder) == "" {
		return
	}
	var e Exchange
	e.Test = t.Name()
	e.Request.Method, e.Request.URL, e.Request.Header, e.Request.Body = r.Method, r.URL.RequestURI(), r.Header, sent
	e.Answer.Status, e.Answer.Header, e.Answer.Body = status, header, got
	line, err := json.Marshal(e)
	if err == nil {
		_, err = file().Write(append(line, '\n'))
	}
	if err != nil {
		t.Errorf("writing the traffic down: %v", err)
	}
}

// file is the record of this process. Each line is one write at its end.
var file = sync.OnceValue(func() *os.File {
	f, err := os.OpenFile(filepath.Join(os.Getenv(Folder), filepath.Base(os.Args[0])+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	return f
})
