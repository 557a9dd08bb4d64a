package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
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

// call returns the data of the answer, or a sentence that says what is wrong.
func (o *operator) call(method, uri string, body any) (data json.RawMessage, err error) {
	address, err := caddycmd.DetermineAdminAPIAddress(o.address, nil, "", "")
	if err != nil {
		return nil, fmt.Errorf("finding the admin endpoint: %w", err)
	}
	for range startAttempts {
		var reason string
		if data, reason, err = callOnce(address, method, uri, body); reason != "store_unavailable" {
			break
		}
		time.Sleep(startPause)
	}
	return data, err
}

func callOnce(address, method, uri string, body any) (data json.RawMessage, reason string, err error) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, "", err
		}
		sent = bytes.NewReader(text)
	}
	resp, err := caddycmd.AdminAPIRequest(address, method, uri, nil, sent)
	if err != nil {
		return nil, "", explain(address, err, &reason)
	}
	defer resp.Body.Close()
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, "", fmt.Errorf("reading the answer of Caddy at %s: %w", address, err)
	}
	return answer.Data, "", nil
}

// explain makes a sentence of the error of AdminAPIRequest, which holds the body
// of a refusal as text.
func explain(address string, err error, reason *string) error {
	text := err.Error()
	if at := strings.IndexByte(text, '{'); at >= 0 {
		var answer struct {
			Message string `json:"message"`
			Data    struct {
				Reason string `json:"reason"`
			} `json:"data"`
		}
		if json.Unmarshal([]byte(text[at:]), &answer) == nil && answer.Message != "" {
			*reason = answer.Data.Reason
			return errors.New(answer.Message)
		}
	}
	if strings.Contains(text, "HTTP 404") {
		return fmt.Errorf("the Caddy at %s has no API keys: build it with this plugin", address)
	}
	return fmt.Errorf("cannot reach the admin endpoint of Caddy at %s; is it running, and is --address right? (%w)", address, err)
}

func organizationPath(id string) string {
	return adminBase + "organizations/" + url.PathEscape(id) + "/keys"
}

func keyPath(id string) string { return adminBase + "keys/" + url.PathEscape(id) }
