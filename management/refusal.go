package management

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// Refusal is an answer that says no: the same envelope as a success, and the
// headers that go with the status. Nothing in it comes from a credential.
//
// It is also an error, so that an endpoint can return it in place of a result.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	Reason Reason
	// Field is the field or query parameter that is to blame, if one is.
	Field string
	// KeyID is the key that a repeated call made.
	KeyID apikey.ID
	// Message tells a person what is wrong and what to do.
	Message string
	// Challenge is the WWW-Authenticate header, if the answer has one.
	Challenge string
	// Allow is the Allow header of a 405.
	Allow string
	// RetryAfter is sent in whole seconds, rounded up; zero sends nothing.
	RetryAfter time.Duration

	before, after []byte // the body around the id of a request, see Prepare
}

// Error returns the message.
func (f *Refusal) Error() string { return f.Message }

// Write answers r with the refusal; to HEAD it sends the headers only.
func (f *Refusal) Write(w http.ResponseWriter, r *http.Request, requestID string) {
	f.setHeaders(w.Header())
	if f.before == nil || strings.ContainsFunc(requestID, needsQuoting) {
		writeJSON(w, r, f.Status, f.encode(requestID))
		return
	}
	writeJSON(w, r, f.Status, slices.Concat(f.before, []byte(requestID), f.after))
}

func needsQuoting(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-'
}

// Prepare writes the body of a refusal that is given often, and does not change any
// more. It returns the refusal.
func (f *Refusal) Prepare() *Refusal {
	const anID = "00000000-0000-0000-0000-000000000000"
	f.before, f.after, _ = bytes.Cut(f.encode(anID), []byte(anID))
	return f
}

func (f *Refusal) encode(requestID string) []byte {
	return encodeEnvelope(f.Status, struct {
		Reason Reason `json:"reason"`
		Field  string `json:"field,omitempty"`
		ID     string `json:"id,omitempty"`
	}{f.Reason, f.Field, f.KeyID.String()}, f.Message, requestID)
}

// SetHeaders sets the headers that go with the refusal, for who writes an answer of
// his own: also those by which no cache gives it to somebody else.
func (f *Refusal) SetHeaders(header http.Header) {
	f.setHeaders(header)
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Authorization")
}

// setHeaders sets the headers that go with the status.
func (f *Refusal) setHeaders(header http.Header) {
	if f.Challenge != "" {
		header["Www-Authenticate"] = []string{f.Challenge}
	}
	if f.Allow != "" {
		header.Set("Allow", f.Allow)
	}
	if f.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
}

var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// challenge writes a WWW-Authenticate header of the Bearer scheme (RFC 6750,
// section 3).
func challenge(realm string, reason Reason) string {
	text := `Bearer realm="` + quoted.Replace(realm) + `"`
	if reason != "" {
		text += `, error="` + string(reason) + `"`
	}
	return text
}
