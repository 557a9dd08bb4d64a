package apikey

import (
	"fmt"
	"net/netip"
	"time"
)

// Scope is the right that a key carries.
type Scope uint8

const (
	// ScopeRead allows requests that do not write.
	ScopeRead Scope = iota
	// ScopeReadWrite allows every request.
	ScopeReadWrite
)

// String returns the scope as the contract writes it.
func (s Scope) String() string {
	if s == ScopeReadWrite {
		return "read-write"
	}
	return "read"
}

// ParseScope reads a scope as the contract writes it.
func ParseScope(text string) (Scope, bool) {
	switch text {
	case "read":
		return ScopeRead, true
	case "read-write":
		return ScopeReadWrite, true
	}
	return ScopeRead, false
}

// Principal is who acts: a user or a service account of an organization, or the
// operator of the gateway.
type Principal struct {
	// OrganizationID is the tenant on whose keys the principal acts.
	OrganizationID string
	// UserID or ServiceAccountID names the principal; the operator has
	// neither.
	UserID           string
	ServiceAccountID string
	// KeyID is the key that the principal presented. It is zero when the
	// identity came from elsewhere; a key's right is looked up again inside
	// every write.
	KeyID ID
	// Scope bounds what the principal may do.
	Scope Scope
	// Operator marks the person who runs the gateway.
	Operator bool

	// Address and RequestID tell from where and by which request the
	// principal acts. They are passed on to the Observer and decide nothing.
	Address   string
	RequestID string
}

// OperatorName is what stands in createdBy for keys that the operator made.
const OperatorName = "operator"

// Operator returns the operator, acting on the keys of an organization.
func Operator(organizationID string) Principal {
	return Principal{OrganizationID: organizationID, Operator: true, Scope: ScopeReadWrite}
}

// ID returns the id of the user or service account, or [OperatorName].
func (p Principal) ID() string {
	switch {
	case p.Operator:
		return OperatorName
	case p.ServiceAccountID != "":
		return p.ServiceAccountID
	}
	return p.UserID
}

// anywhere reports whether the principal may act on any organization.
func (p *Principal) anywhere() bool { return p.Operator && p.OrganizationID == "" }

// Key is the record of a key. It never holds the token or a part of its secret.
// Times are in UTC and whole milliseconds; a zero time means "not set".
type Key struct {
	ID             ID
	OrganizationID string
	// One of UserID and ServiceAccountID is set: the owner.
	UserID           string
	ServiceAccountID string
	Name             string
	Description      string
	Scope            Scope
	// Prefix starts the token, before the key id. It is empty when the token
	// was made elsewhere.
	Prefix    string
	CreatedAt time.Time
	// CreatedBy is the id of the principal that asked for the key.
	CreatedBy string
	// MintedBy is the key that the principal presented then, if any.
	MintedBy  ID
	ExpiresAt time.Time
	RevokedAt time.Time
	// RevokedFor tells why the key was revoked, where somebody said so, as
	// "leaked".
	RevokedFor string
	// ReplacedBy is the key that this one was rotated to. It then ends at
	// ExpiresAt, when its grace is over.
	ReplacedBy ID
	Usage      Usage
}

// TokenStart returns the public start of the token: its prefix and the key id. It is
// empty when the token was made elsewhere.
func (k *Key) TokenStart() string {
	if k.Prefix == "" {
		return ""
	}
	return string(k.ID.appendDigits(append(append(make([]byte, 0, 64), k.Prefix...), '_')))
}

// Rotated reports whether the key was replaced by another.
func (k *Key) Rotated() bool { return !k.ReplacedBy.IsZero() }

// Active reports whether the key is neither revoked nor expired at now.
func (k *Key) Active(now time.Time) bool { return !k.Revoked() && !k.Expired(now) }

// Revoked reports whether the key was revoked.
func (k *Key) Revoked() bool { return !k.RevokedAt.IsZero() }

// Expired reports whether the key has expired at now.
func (k *Key) Expired(now time.Time) bool {
	return !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt)
}

// Usage tells when and from where a key was last accepted, and how often.
type Usage struct {
	LastUsedAt time.Time
	// LastUsedIP and LastUsedUserAgent belong to the same request.
	LastUsedIP        netip.Addr
	LastUsedUserAgent string
	Count             uint64
}

// Issue says what a new key is to be.
type Issue struct {
	Name        string
	Description string
	Scope       Scope
	// ExpiresAt is zero for a key without an end.
	ExpiresAt time.Time
	// UserID is the owner that the operator names; for anybody else the
	// owner is the caller.
	UserID string
	// ServiceAccountID makes a service account the owner.
	ServiceAccountID string
	// Once makes a repetition of the call a refusal instead of a second key.
	Once *Once
}

// FieldError says that one field of a request cannot be accepted, and why.
// Management answers it with a 400.
type FieldError struct {
	Field  string // as the contract names it
	Reason string // completes the sentence "<field> ..."
}

// Error returns a sentence that begins with the field.
func (e *FieldError) Error() string { return fmt.Sprintf("%s %s", e.Field, e.Reason) }
