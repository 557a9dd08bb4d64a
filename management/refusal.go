package management

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Reason is the machine-readable cause of a refusal, `reason` in the envelope's
// data. The list below is closed.
type Reason string

// The reasons, by the status they come with. invalid_request, invalid_token and
// insufficient_scope are those of RFC 6750.
const (
	// 400
	ReasonInvalidRequest   Reason = "invalid_request"   // more than one credential, or a malformed one
	ReasonInvalidBody      Reason = "invalid_body"      // not one JSON object in valid UTF-8
	ReasonUnknownField     Reason = "unknown_field"     // a field that the call does not take
	ReasonDuplicateField   Reason = "duplicate_field"   // a field that is given twice
	ReasonMissingField     Reason = "missing_field"     // a required field is absent
	ReasonInvalidField     Reason = "invalid_field"     // a field whose value cannot be accepted
	ReasonUnknownParameter Reason = "unknown_parameter" // a query parameter that the call does not take
	ReasonInvalidParameter Reason = "invalid_parameter" // a query parameter whose value cannot be accepted
	// 401
	ReasonNoCredential Reason = "no_credential" // the request carries no key
	ReasonInvalidToken Reason = "invalid_token" // the key is unknown, mistyped, expired or revoked
	// 403
	ReasonInsufficientScope       Reason = "insufficient_scope"        // the key's scope is too small
	ReasonOrganizationNotAdmitted Reason = "organization_not_admitted" // keys of this organization are not accepted here
	ReasonCrossSite               Reason = "cross_site"                // a browser sent the write from another site
	// 404 to 425
	ReasonNotFound             Reason = "not_found"              // 404: absent, or of another organization
	ReasonMethodNotAllowed     Reason = "method_not_allowed"     // 405
	ReasonBodyTooLarge         Reason = "body_too_large"         // 413
	ReasonUnsupportedMediaType Reason = "unsupported_media_type" // 415
	ReasonTooEarly             Reason = "too_early"              // 425: a write in replayable TLS early data
	// 500 and 503
	ReasonInternal         Reason = "internal_error"    // 500: the cause is in the log
	ReasonStoreUnavailable Reason = "store_unavailable" // 503: nothing was changed
	ReasonOutcomeUnknown   Reason = "outcome_unknown"   // 503: the change may be in force or not
)

// retryAfter is what a client is told to wait when the store cannot be asked.
const retryAfter = 5 * time.Second

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
	// Message tells a person what is wrong and what to do.
	Message string
	// Challenge is the WWW-Authenticate header, if the answer has one.
	Challenge string
	// Allow is the Allow header of a 405.
	Allow string
	// RetryAfter is sent in whole seconds, rounded up; zero sends nothing.
	RetryAfter time.Duration
}

// Error returns the message.
func (f *Refusal) Error() string { return f.Message }

// Write answers r with the refusal; to HEAD it sends the headers only.
func (f *Refusal) Write(w http.ResponseWriter, r *http.Request, requestID string) {
	header := w.Header()
	if f.Challenge != "" {
		header.Set("WWW-Authenticate", f.Challenge)
	}
	if f.Allow != "" {
		header.Set("Allow", f.Allow)
	}
	if f.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}
	data := struct {
		Reason Reason `json:"reason"`
		Field  string `json:"field,omitempty"`
	}{f.Reason, f.Field}
	writeEnvelope(w, r, f.Status, data, f.Message, requestID)
}

// NoCredential refuses a request that carries no key: 401, with a challenge
// that names no error (RFC 6750, section 3.1).
func NoCredential(realm string) *Refusal {
	return &Refusal{
		Status: http.StatusUnauthorized, Reason: ReasonNoCredential, Challenge: challenge(realm, ""),
		Message: "an API key is required: send the header Authorization: Bearer YOUR_API_KEY",
	}
}

// InvalidRequest refuses a request whose credential is ambiguous or malformed:
// 400.
func InvalidRequest(realm string) *Refusal {
	return &Refusal{
		Status: http.StatusBadRequest, Reason: ReasonInvalidRequest, Challenge: challenge(realm, ReasonInvalidRequest),
		Message: "the credential is ambiguous or malformed: send exactly one header Authorization: Bearer YOUR_API_KEY",
	}
}

// InvalidToken refuses a key that is not good: 401, one and the same whether it
// is unknown, mistyped, expired or revoked.
func InvalidToken(realm string) *Refusal {
	return &Refusal{
		Status: http.StatusUnauthorized, Reason: ReasonInvalidToken, Challenge: challenge(realm, ReasonInvalidToken),
		Message: "the API key is not valid: it is unknown, mistyped, expired or revoked",
	}
}

// InsufficientScope refuses a good key whose scope is too small: 403.
func InsufficientScope(realm string) *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonInsufficientScope, Challenge: challenge(realm, ReasonInsufficientScope),
		Message: "the scope of the API key does not allow this request: use a key with scope read-write",
	}
}

// OrganizationNotAdmitted refuses a good key of an organization whose keys are
// not accepted here: 403.
func OrganizationNotAdmitted() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonOrganizationNotAdmitted,
		Message: "API keys of this organization are not accepted here",
	}
}

// CrossSite refuses a write that a browser sent from a page of another site:
// 403.
func CrossSite() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonCrossSite,
		Message: "writes from pages of another site are not accepted",
	}
}

// NotFound refuses a path that leads nowhere, and alike the id of a key that is
// absent or of another organization: 404.
func NotFound() *Refusal {
	return &Refusal{
		Status: http.StatusNotFound, Reason: ReasonNotFound,
		Message: "not found: no API key and no call of this API has this path",
	}
}

// MethodNotAllowed refuses a method that the path does not have: 405. allow
// lists those that it has.
func MethodNotAllowed(allow string) *Refusal {
	return &Refusal{
		Status: http.StatusMethodNotAllowed, Reason: ReasonMethodNotAllowed, Allow: allow,
		Message: "the method is not allowed here: use one of " + allow,
	}
}

// BodyTooLarge refuses a body of more than limit bytes: 413.
func BodyTooLarge(limit int) *Refusal {
	return &Refusal{
		Status: http.StatusRequestEntityTooLarge, Reason: ReasonBodyTooLarge,
		Message: fmt.Sprintf("the body is too large: send at most %d bytes", limit),
	}
}

// UnsupportedMediaType refuses a body that is not declared as plain JSON: 415.
func UnsupportedMediaType() *Refusal {
	return &Refusal{
		Status: http.StatusUnsupportedMediaType, Reason: ReasonUnsupportedMediaType,
		Message: "send one header Content-Type: application/json, in UTF-8 and without Content-Encoding",
	}
}

// TooEarly refuses a write in TLS early data, which anybody on the way can
// replay (RFC 8470): 425.
func TooEarly() *Refusal {
	return &Refusal{
		Status: http.StatusTooEarly, Reason: ReasonTooEarly,
		Message: "the request came before the TLS handshake was complete: send it again",
	}
}

// StoreUnavailable says that the answer could not be found out, and that
// nothing was changed: 503.
func StoreUnavailable() *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, Reason: ReasonStoreUnavailable, RetryAfter: retryAfter,
		Message: "the key store is unavailable: try again later",
	}
}

// OutcomeUnknown says that a change was begun, and that it could not be found
// out whether it is in force: 503.
func OutcomeUnknown() *Refusal {
	return &Refusal{
		Status: http.StatusServiceUnavailable, Reason: ReasonOutcomeUnknown, RetryAfter: retryAfter,
		Message: "the key store failed during the change: look whether it was made before trying again",
	}
}

// Internal says that something went wrong that is none of the client's
// business: 500.
func Internal() *Refusal {
	return &Refusal{
		Status: http.StatusInternalServerError, Reason: ReasonInternal,
		Message: "internal error: the log of the gateway has the cause under this requestId",
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
