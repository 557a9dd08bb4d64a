package management

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// envelope is the shape of every answer, as the contract fixes it.
type envelope struct {
	Code      int    `json:"code"` // the HTTP status
	Data      any    `json:"data"`
	Message   string `json:"message"`
	RequestID string `json:"requestId"`
}

// writeEnvelope answers r. To HEAD it sends the headers of the answer to GET.
func writeEnvelope(w http.ResponseWriter, r *http.Request, status int, data any, message, requestID string) {
	writeJSON(w, r, status, encodeEnvelope(status, data, message, requestID))
}

func encodeEnvelope(status int, data any, message, requestID string) []byte {
	// Strings and structs of strings: encoding cannot fail. encoding/json
	// also escapes <, > and &, so that no answer can pass for a page.
	body, _ := json.Marshal(envelope{Code: status, Data: data, Message: message, RequestID: requestID})
	return append(body, '\n')
}

// writeJSON answers r with a body of JSON.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	// One allocation for all values. They belong to this answer: a middleware may
	// change them in place.
	values := [...]string{"application/json", strconv.Itoa(len(body)), "no-store", "nosniff"}
	header := w.Header()
	for i, name := range [len(values)]string{"Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options"} {
		header[name] = values[i : i+1 : i+1]
	}
	header.Add("Vary", "Authorization")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body) // a client that has gone away needs no answer
	}
}

// keyData is a key as the contract shows it, in the order of its example. A
// field without a value is left out.
type keyData struct {
	CreatedAt         string `json:"createdAt,omitempty"`
	CreatedBy         string `json:"createdBy,omitempty"`
	Description       string `json:"description,omitempty"`
	ExpiresAt         string `json:"expiresAt,omitempty"`
	ID                string `json:"id,omitempty"`
	Token             string `json:"key,omitempty"` // only in the answer that made it
	KeyPrefix         string `json:"keyPrefix,omitempty"`
	LastUsedAt        string `json:"lastUsedAt,omitempty"`
	LastUsedIP        string `json:"lastUsedIp,omitempty"`
	LastUsedUserAgent string `json:"lastUsedUserAgent,omitempty"`
	Name              string `json:"name,omitempty"`
	OrganizationID    string `json:"organizationId,omitempty"`
	ReplacedBy        string `json:"replacedBy,omitempty"` // of a rotated key
	RevokedAt         string `json:"revokedAt,omitempty"`
	RevokedFor        string `json:"revokedFor,omitempty"`
	Scope             string `json:"scope,omitempty"`
	ServiceAccountID  string `json:"serviceAccountId,omitempty"`
	UserID            string `json:"userId,omitempty"`
}

func newKeyData(key *apikey.Key) keyData {
	data := keyData{
		CreatedAt:         timestamp(key.CreatedAt),
		CreatedBy:         key.CreatedBy,
		Description:       key.Description,
		ExpiresAt:         timestamp(key.ExpiresAt),
		ID:                key.ID.String(),
		KeyPrefix:         key.TokenStart(),
		LastUsedAt:        timestamp(key.Usage.LastUsedAt),
		LastUsedUserAgent: key.Usage.LastUsedUserAgent,
		Name:              key.Name,
		OrganizationID:    key.OrganizationID,
		ReplacedBy:        key.ReplacedBy.String(),
		RevokedAt:         timestamp(key.RevokedAt),
		RevokedFor:        key.RevokedFor,
		Scope:             key.Scope.String(),
		ServiceAccountID:  key.ServiceAccountID,
		UserID:            key.UserID,
	}
	if key.Usage.LastUsedIP.IsValid() {
		data.LastUsedIP = key.Usage.LastUsedIP.String()
	}
	return data
}

// pageData is one page of a list. NextCursor is left out on the last page.
type pageData struct {
	Items      []keyData `json:"items"`
	NextCursor string    `json:"nextCursor,omitempty"`
}

// timestamp writes t as RFC 3339 in UTC, to the millisecond, and the zero time
// as nothing.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z07:00")
}
