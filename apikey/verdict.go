package apikey

import "time"

// Reason says why a request was refused. The list is closed: it is also the
// set of values of a metric label.
type Reason uint8

// The reasons. Those from ReasonMalformed to ReasonRevoked are one and the same
// to the client; only the operator may learn which it was.
const (
	ReasonNone         Reason = iota // not refused
	ReasonNoCredential               // the request carries no credential
	ReasonAmbiguous                  // more than one credential, or an empty one
	ReasonMalformed                  // not the shape of a token of ours
	ReasonChecksum                   // the shape, but mistyped
	ReasonUnknown                    // no such key, or another secret
	ReasonExpired                    // the key's life has ended
	ReasonRevoked                    // the key was revoked
	ReasonScope                      // the key's scope is too small
	ReasonOrganization               // the key's organization is not admitted here
	ReasonUnavailable                // it could not be found out

	reasonCount
)

var reasonNames = [reasonCount]string{
	"none", "no_credential", "ambiguous_credential", "malformed", "bad_checksum", "unknown", "expired", "revoked",
	"insufficient_scope", "organization_not_admitted", "store_unavailable",
}

// String returns the reason as metrics and logs name it.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons returns every reason, in order.
func Reasons() []Reason {
	all := make([]Reason, reasonCount)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}

// Verdict is the answer of a check. It is a value: it stays as it is whatever
// happens to the key later.
type Verdict struct {
	// Reason is ReasonNone when the key is good.
	Reason Reason
	// The key and its owner. They are set when the secret was right, so also
	// for an expired or revoked key.
	KeyID            ID
	OrganizationID   string
	UserID           string
	ServiceAccountID string
	Scope            Scope
	ExpiresAt        time.Time

	entry slot
	at    int64 // when the verdict was reached, in Unix milliseconds
}

// Allowed reports whether the key is good. Whether its scope is enough for a
// request is for the caller to decide.
func (v *Verdict) Allowed() bool { return v.Reason == ReasonNone }

// PrincipalID returns the id of the service account or user that owns the key.
func (v *Verdict) PrincipalID() string {
	if v.ServiceAccountID != "" {
		return v.ServiceAccountID
	}
	return v.UserID
}

// Principal returns the owner of the key as one who acts.
func (v *Verdict) Principal() Principal {
	return Principal{
		OrganizationID:   v.OrganizationID,
		UserID:           v.UserID,
		ServiceAccountID: v.ServiceAccountID,
		KeyID:            v.KeyID,
		Scope:            v.Scope,
	}
}
