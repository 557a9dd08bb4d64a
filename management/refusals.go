package management

import (
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
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
	ReasonInvalidHeader    Reason = "invalid_header"    // a header of the call whose value cannot be accepted
	// 401
	ReasonNoCredential Reason = "no_credential" // the request carries no key
	ReasonInvalidToken Reason = "invalid_token" // the key is unknown, mistyped, expired or revoked
	// 403
	ReasonInsufficientScope       Reason = "insufficient_scope"        // the key's scope is too small
	ReasonOrganizationNotAdmitted Reason = "organization_not_admitted" // keys of this organization are not accepted here
	ReasonCrossSite               Reason = "cross_site"                // a browser sent the write from another site
	ReasonOperatorOnly            Reason = "operator_only"             // keys are managed by the operator only
	ReasonNotOwner                Reason = "not_owner"                 // the key belongs to another user
	ReasonOwnLife                 Reason = "own_life"                  // a key cannot lengthen its own life
	ReasonKeyLimit                Reason = "key_limit"                 // the organization has as many keys as it may have
	ReasonInvalidSignature        Reason = "invalid_signature"         // an alert of leaked tokens that nobody trusted has signed
	// 404 to 425
	ReasonNotFound             Reason = "not_found"              // 404: absent, or of another organization
	ReasonMethodNotAllowed     Reason = "method_not_allowed"     // 405
	ReasonDuplicate            Reason = "duplicate"              // 409: a key with this hash is there already
	ReasonNotActive            Reason = "not_active"             // 409: revoked, expired or rotated
	ReasonIdempotencyReplayed  Reason = "idempotency_replayed"   // 409: the call was made before
	ReasonIdempotencyReused    Reason = "idempotency_reused"     // 422: the Idempotency-Key was sent with another call
	ReasonBodyTooLarge         Reason = "body_too_large"         // 413
	ReasonUnsupportedMediaType Reason = "unsupported_media_type" // 415
	ReasonTooEarly             Reason = "too_early"              // 425: a write in replayable TLS early data
	// 500 to 503
	ReasonInternal         Reason = "internal_error"    // 500: the cause is in the log
	ReasonNotSupported     Reason = "not_supported"     // 501: the storage driver cannot do it
	ReasonStoreUnavailable Reason = "store_unavailable" // 503: nothing was changed
	ReasonOutcomeUnknown   Reason = "outcome_unknown"   // 503: the change may be in force or not
)

// retryAfter is what a client is told to wait when the store cannot be asked.
const retryAfter = 5 * time.Second

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

// OperatorOnly refuses a call where only the operator manages keys: 403.
func OperatorOnly() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonOperatorOnly,
		Message: "API keys are managed by the operator of this gateway: ask there",
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

// NotAToken says that what was to be verified is no token of an active key, one and
// the same whether it is unknown, mistyped, expired, revoked or of another
// organization: 404.
func NotAToken() *Refusal {
	return &Refusal{
		Status: http.StatusNotFound, Reason: ReasonNotFound,
		Message: "not found: this is not the token of an active API key",
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

// Duplicate refuses a key that was imported before: 409.
func Duplicate() *Refusal {
	return &Refusal{Status: http.StatusConflict, Reason: ReasonDuplicate, Field: "hash", Message: "a key with this hash is there already"}
}

// NotActive refuses to change a key that has ended, or was rotated: 409.
func NotActive() *Refusal {
	return &Refusal{
		Status: http.StatusConflict, Reason: ReasonNotActive,
		Message: "the API key is revoked, expired, or was rotated already: make a new one, or rotate the one that replaced it",
	}
}

// NotOwner refuses to rotate the key of another user: 403.
func NotOwner() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonNotOwner,
		Message: "the API key belongs to another user, who has to do this",
	}
}

// OwnLife refuses a key that would lengthen its own life: 403.
func OwnLife() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonOwnLife, Field: "expiresAt",
		Message: "an API key cannot lengthen its own life: rotate it, or use another key",
	}
}

// KeyLimit refuses one more key than an organization may have: 403.
func KeyLimit() *Refusal {
	return &Refusal{
		Status: http.StatusForbidden, Reason: ReasonKeyLimit,
		Message: "the organization has as many active API keys as it may have: revoke one first",
	}
}

// IdempotencyReplayed answers a call that was made before: 409. Its token was
// shown then, and is kept nowhere.
func IdempotencyReplayed(id apikey.ID) *Refusal {
	return &Refusal{
		Status: http.StatusConflict, Reason: ReasonIdempotencyReplayed, KeyID: id,
		Message: "this call was made before, and its API key exists; the token cannot be shown again: revoke the key and make another if it was lost",
	}
}

// IdempotencyReused refuses a call whose Idempotency-Key belongs to another: 422.
func IdempotencyReused() *Refusal {
	return &Refusal{
		Status: http.StatusUnprocessableEntity, Reason: ReasonIdempotencyReused,
		Message: "the Idempotency-Key was sent with another call before: use a new one for each call",
	}
}

// BodyTooLarge refuses a body of more than limit bytes: 413.
func BodyTooLarge(limit int64) *Refusal {
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

// NoBackup says that the storage driver cannot copy its store: 501.
func NoBackup() *Refusal {
	return &Refusal{
		Status: http.StatusNotImplemented, Reason: ReasonNotSupported,
		Message: "the storage driver cannot copy its store: use the backup of the database behind it",
	}
}
