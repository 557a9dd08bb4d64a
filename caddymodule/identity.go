package caddymodule

import "github.com/caddy-apikeys/caddy-apikeys/apikey"

// The facts about an accepted key that the upstream is told.
const (
	factKeyID = iota
	factOrganization
	factUser
	factServiceAccount
	factScope

	factCount
)

// identity is what is known of an accepted request. It is allocated once and
// holds the values of the headers too.
type identity struct {
	verdict apikey.Verdict
	keyName string // the id of the key as text
	keyring *apikey.Keyring
	values  [factCount]string
	beside  bool           // the key stood in another header than Authorization
	running runningRequest // of the first gate
}

func newIdentity(v apikey.Verdict, keyring *apikey.Keyring) *identity {
	name := v.KeyID.String()
	return &identity{verdict: v, keyName: name, keyring: keyring, values: [factCount]string{
		factKeyID:          name,
		factOrganization:   v.OrganizationID,
		factUser:           v.UserID,
		factServiceAccount: v.ServiceAccountID,
		factScope:          v.Scope.String(),
	}}
}

// placeholder implements caddy.ReplacerFunc: what is known of accepted requests,
// beside {http.auth.user.id}. It looks at the verdict, because handlers may change
// the values of headers in place.
func (id *identity) placeholder(name string) (any, bool) {
	switch name {
	case "http.auth.user.key_id":
		return id.keyName, true
	case "http.auth.user.organization_id":
		return id.verdict.OrganizationID, true
	case "http.auth.user.scope":
		return id.verdict.Scope.String(), true
	}
	return nil, false
}
