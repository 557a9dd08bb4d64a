package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// operator calls the admin endpoint and prints what it says.
type operator struct {
	address string
	json    bool
	out     io.Writer
}

// A server that is just starting answers before its configuration is in force.
const (
	startAttempts = 10
	startPause    = 200 * time.Millisecond
)

// call sends a body as JSON, if there is one. It returns the data of the answer, or
// a sentence that says what is wrong.
func (o *operator) call(method, uri string, body any) (json.RawMessage, error) {
	if body == nil {
		return o.send(method, uri, nil, nil)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return o.send(method, uri, nil, text)
}

// send sends a body as it is.
func (o *operator) send(method, uri string, header http.Header, body []byte) (data json.RawMessage, err error) {
	address, err := o.endpoint()
	if err != nil {
		return nil, err
	}
	var reason string
	for range startAttempts {
		if data, reason, err = sendOnce(address, method, uri, header, body); reason != "store_unavailable" {
			break
		}
		time.Sleep(startPause)
	}
	if reason == "store_unavailable" {
		// The operator may know more than the clients of the API.
		if _, _, why := sendOnce(address, http.MethodGet, adminBase+"ready", nil, nil); why != nil {
			return nil, why
		}
	}
	if reason == "not_found" {
		err = &exitError{exitNotFound, err}
	}
	return data, err
}

func (o *operator) endpoint() (string, error) {
	address, err := caddycmd.DetermineAdminAPIAddress(o.address, nil, "", "")
	if err != nil {
		return "", fmt.Errorf("finding the admin endpoint: %w", err)
	}
	return address, nil
}

func sendOnce(address, method, uri string, header http.Header, body []byte) (data json.RawMessage, reason string, err error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	// Each call has a connection of its own, which would stay open, and take memory
	// of the server, until the command ends: an import makes many.
	header = header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	header.Set("Connection", "close")
	resp, err := caddycmd.AdminAPIRequest(address, method, uri, header, reader)
	if err != nil {
		reason, err = explain(address, method, err)
		return nil, reason, err
	}
	defer resp.Body.Close()
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, "", unanswered(address, method, err)
	}
	return answer.Data, "", nil
}

// stream asks for an answer that is too long to be held.
func (o *operator) stream(uri string) (*http.Response, error) {
	address, err := o.endpoint()
	if err != nil {
		return nil, err
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, uri, nil, nil)
	if err != nil {
		_, err = explain(address, http.MethodGet, err)
	}
	return resp, err
}

// explain makes a sentence of the error of AdminAPIRequest, which holds the body
// of a refusal as text.
func explain(address, method string, err error) (reason string, _ error) {
	text := err.Error()
	if at := strings.IndexByte(text, '{'); at >= 0 {
		var answer struct {
			Message string `json:"message"`
			Data    struct {
				Reason string `json:"reason"`
			} `json:"data"`
			Reason string `json:"reason"` // of /ready
		}
		if json.Unmarshal([]byte(text[at:]), &answer) == nil && answer.Message+answer.Reason != "" {
			return answer.Data.Reason, errors.New(answer.Message + answer.Reason)
		}
	}
	if strings.Contains(text, "HTTP 404") {
		return "", fmt.Errorf("the Caddy at %s has no API keys: build it with this plugin", address)
	}
	// AdminAPIRequest keeps no error but as text.
	if strings.HasPrefix(text, "performing request: ") && !strings.Contains(text, ": dial ") {
		return "", unanswered(address, method, err)
	}
	return "", fmt.Errorf("cannot reach the admin endpoint of Caddy at %s; is it running, and is --address right? (%w)", address, err)
}

// unanswered says that a request was sent and its answer did not arrive.
func unanswered(address, method string, err error) error {
	if method == http.MethodGet {
		return fmt.Errorf("the answer of Caddy at %s did not arrive (%w)", address, err)
	}
	return fmt.Errorf("the answer of Caddy at %s did not arrive, and what was to be changed may have been changed: look with list (%w)", address, err)
}

// noTokens refuses a token where the id of a key should be, before it becomes a part of
// a URL, which is logged.
func noTokens(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if redact(arg) != arg {
			return errors.New("this is a token, not the id of a key, which begins with key_: give the id, or the token to verify on standard input")
		}
	}
	return nil
}

// ofKey says which key an error is about, if it was not found.
func ofKey(id string, err error) error {
	exit, ok := errors.AsType[*exitError](err)
	if !ok || exit.code != exitNotFound {
		return err
	}
	if !apikey.IsIdentity(id) {
		id = strconv.Quote(id)
	}
	return &exitError{exitNotFound, fmt.Errorf("not found: there is no key %s", id)}
}

func organizationPath(id string) string {
	return adminBase + "organizations/" + pathSegment(id) + "/keys"
}

func keyPath(id string) string { return adminBase + "keys/" + pathSegment(id) }

// pathSegment escapes dots too: an organization may be called "..".
func pathSegment(id string) string {
	return strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
}
