package management

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// The call in this file is for GitHub's secret scanning, which reports tokens that
// it finds in public (docs.github.com, "Secret scanning partner program").

const (
	// maxAlert is the size of the largest alert, in bytes.
	maxAlert = 1 << 20
	// maxLeaks is how many tokens an alert may report.
	maxLeaks = 10_000
	// leaksTimeout bounds the work on an alert. It goes on when the reporter
	// has left: the tokens are no less public.
	leaksTimeout = time.Minute
)

// Signers are the public keys that alerts may be signed with, on the curve P-256,
// by the identifiers under which their owner publishes them.
type Signers map[string]*ecdsa.PublicKey

// signed reports whether the header has a good signature of the body.
func (s Signers) signed(header http.Header, body []byte) bool {
	key := s.named(header)
	signatures := header.Values("Github-Public-Key-Signature")
	if key == nil || len(signatures) != 1 {
		return false
	}
	signature, err := base64.StdEncoding.DecodeString(signatures[0])
	digest := sha256.Sum256(body)
	return err == nil && ecdsa.VerifyASN1(key, digest[:], signature)
}

// named returns the key that the header names, or nil.
func (s Signers) named(header http.Header) *ecdsa.PublicKey {
	if names := header.Values("Github-Public-Key-Identifier"); len(names) == 1 {
		return s[names[0]]
	}
	return nil
}

// leakAlert is one token of an alert. Fields that are not known are passed over:
// the sender may add some.
type leakAlert struct {
	Token string `json:"token"`
	Type  string `json:"type"`
	URL   string `json:"url"`
}

// leakFeedback tells the sender what became of one token.
type leakFeedback struct {
	Hash  string `json:"token_hash"` // SHA-256, in hexadecimal digits
	Type  string `json:"token_type"`
	Label string `json:"label"`
}

// ServeLeaks takes an alert that is signed by one of the signers, and revokes the
// keys of the tokens in it as leaked. The answer is not the envelope but what the
// sender reads: which tokens were good. An alert that comes again changes nothing.
//
// address and requestID tell from where and by which request it came.
func (h *Handler) ServeLeaks(w http.ResponseWriter, r *http.Request, signers Signers, address, requestID string) {
	feedback, err := h.takeLeaks(w, r, signers, address, requestID)
	if err != nil {
		h.fail(w, r, requestID, err)
		return
	}
	body, _ := json.Marshal(feedback) // strings in valid UTF-8: cannot fail
	writeJSON(w, r, http.StatusOK, body)
}

func (h *Handler) takeLeaks(w http.ResponseWriter, r *http.Request, signers Signers, address, requestID string) ([]leakFeedback, error) {
	if r.Method != http.MethodPost {
		return nil, MethodNotAllowed(http.MethodPost)
	}
	if refusal := requireJSON(r.Header); refusal != nil {
		return nil, refusal
	}
	if signers.named(r.Header) == nil { // spares the body of a stranger
		return nil, InvalidSignature()
	}
	body, err := readAlert(w, r)
	if err != nil {
		return nil, err
	}
	if !signers.signed(r.Header, body) {
		return nil, InvalidSignature()
	}
	alerts, err := readLeaks(body)
	if err != nil {
		// Keys may be in the open, and nothing is done about it.
		if h.Log != nil {
			h.Log(r, requestID, fmt.Errorf("an alert of leaked tokens with a good signature cannot be read, and nothing was revoked: %w", err))
		}
		return nil, err
	}
	keyring, err := h.Keyring()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), leaksTimeout)
	defer cancel()
	feedback := make([]leakFeedback, len(alerts))
	var failed error // the first; the others are tried all the same
	for i, a := range alerts {
		hash := sha256.Sum256([]byte(a.Token))
		feedback[i] = leakFeedback{hex.EncodeToString(hash[:]), a.Type, "true_positive"}
		_, err := keyring.RevokeLeaked(ctx, apikey.Leak{Token: a.Token, FoundAt: placeOf(a), Address: address, RequestID: requestID})
		switch {
		case errors.Is(err, apikey.ErrNotFound):
			feedback[i].Label = "false_positive"
		case err != nil && failed == nil:
			failed = fmt.Errorf("revoking leaked keys: %w", err)
		}
	}
	if failed != nil {
		return nil, failed
	}
	return feedback, nil
}

// alertsRead bounds how many alerts are read at a time, and alertTimeout for how long.
// Who knows the identifier, which is public, can send them; the others wait.
var alertsRead = make(chan struct{}, 16)

const alertTimeout = 10 * time.Second

func readAlert(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	select {
	case alertsRead <- struct{}{}:
		defer func() { <-alertsRead }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	connection := http.NewResponseController(w)
	_ = connection.SetReadDeadline(time.Now().Add(alertTimeout)) // where there is one
	defer func() { _ = connection.SetReadDeadline(time.Time{}) }()
	body, refusal := readBody(w, r, maxAlert)
	if refusal != nil {
		return nil, refusal
	}
	return body, nil
}

// readLeaks reads the body of an alert, all of it or nothing. Its errors never
// repeat what stands in it.
func readLeaks(body []byte) (alerts []leakAlert, _ error) {
	const shape = `the body must be a JSON array of objects, each with a "token", "type" and "url"`
	if err := json.Unmarshal(body, &alerts); err != nil || alerts == nil {
		return nil, invalidBody("", shape)
	}
	if len(alerts) > maxLeaks {
		return nil, invalidBody("", fmt.Sprintf("the alert has %d tokens: send at most %d", len(alerts), maxLeaks))
	}
	for _, a := range alerts {
		if a.Token == "" {
			return nil, invalidBody("token", shape)
		}
	}
	return alerts, nil
}

// maxPlace is how much is kept of the URL at which a token was found.
const maxPlace = 512

// placeOf returns the URL at which a token was found, in printable ASCII and
// without what may be secret: user, query, and the token itself.
func placeOf(a leakAlert) string {
	at, err := url.Parse(a.URL)
	if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
		return ""
	}
	if strings.Contains(at.Host+at.Path+at.Fragment, a.Token) {
		return ""
	}
	plain := url.URL{Scheme: at.Scheme, Host: at.Host, Path: at.Path, Fragment: at.Fragment}
	text := plain.String()
	return text[:min(len(text), maxPlace)]
}

// InvalidSignature refuses an alert that is not signed with a key that is
// configured: 403, one and the same whatever is wrong with it.
func InvalidSignature() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonInvalidSignature,
		Message: "the request is not signed with a key that is trusted here",
	}
}
