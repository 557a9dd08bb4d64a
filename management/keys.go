package management

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// The resources of the API.
var (
	collection = resource{
		http.MethodGet:  {run: list, scope: apikey.ScopeReadWrite},
		http.MethodPost: {run: create, scope: apikey.ScopeReadWrite, takes: createMembers},
	}
	oneKey = resource{
		http.MethodGet:    {run: get},
		http.MethodPatch:  {run: update, scope: apikey.ScopeReadWrite, takes: updateMembers},
		http.MethodDelete: {run: revoke, scope: apikey.ScopeReadWrite},
	}
	rotation = resource{
		http.MethodPost: {run: rotate, scope: apikey.ScopeReadWrite, takes: rotateMembers},
	}
	// named are the resources with a name of their own, which no id has.
	named = map[string]resource{
		"self":   {http.MethodGet: {run: self}},
		"verify": {http.MethodPost: {run: verify, scope: apikey.ScopeReadWrite, takes: verifyMembers}},
		"revoke": {http.MethodPost: {run: revokeWhere, scope: apikey.ScopeReadWrite, takes: revokeMembers}},
	}
)

var (
	createMembers = []member{
		{name: "name", required: true},
		{name: "description", blank: true},
		{name: "expiresAt"},
		{name: "scope"},
		{name: "serviceAccountId"},
		{name: "userId", operator: true},
	}
	updateMembers = []member{
		{name: "name"},
		{name: "description", blank: true, clears: true},
		{name: "expiresAt", clears: true},
		{name: "scope"},
	}
	rotateMembers = []member{{name: "gracePeriod"}, {name: "expiresAt"}}
	verifyMembers = []member{{name: "key", required: true}}
	revokeMembers = []member{{name: "userId"}, {name: "serviceAccountId"}, {name: "mintedBy"}}
)

// create makes a key and shows its token, this once.
func create(x *exchange) (any, error) {
	what := apikey.Issue{
		Name:             x.body["name"],
		Description:      x.body["description"],
		UserID:           x.body["userId"],
		ServiceAccountID: x.body["serviceAccountId"],
	}
	var refusal *Refusal
	if text, given := x.body["scope"]; given {
		if what.Scope, refusal = readScope(text); refusal != nil {
			return nil, refusal
		}
	}
	if text, given := x.body["expiresAt"]; given {
		if what.ExpiresAt, refusal = readEnd(text); refusal != nil {
			return nil, refusal
		}
	}
	if what.Once, refusal = x.once("create"); refusal != nil {
		return nil, refusal
	}
	issued, err := x.ring.Issue(x.Context(), x.by, what)
	return newKey(issued, err)
}

func newKey(issued apikey.Issued, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	data := newKeyData(&issued.Key)
	data.Token = issued.Token
	return data, nil
}

// get shows one key.
func get(x *exchange) (any, error) { return onKey(x, x.ring.Get) }

// self shows the caller his own key.
func self(x *exchange) (any, error) {
	x.id = x.by.KeyID.String()
	return get(x)
}

// update changes a key, at once.
func update(x *exchange) (any, error) {
	var what apikey.Update
	for field, text := range x.body {
		switch field {
		case "name":
			what.Name = &text
		case "description":
			what.Description = &text
		case "scope":
			scope, refusal := readScope(text)
			if refusal != nil {
				return nil, refusal
			}
			what.Scope = &scope
		case "expiresAt":
			what.ExpiresAt = new(time.Time)
			if text == "" {
				continue // null: no end
			}
			end, refusal := readEnd(text)
			if refusal != nil {
				return nil, refusal
			}
			what.ExpiresAt = &end
		}
	}
	return onKey(x, func(ctx context.Context, by apikey.Principal, id apikey.ID) (apikey.Key, error) {
		return x.ring.Update(ctx, by, id, what)
	})
}

// defaultGrace is how long an old token is accepted when nobody says so.
const defaultGrace = 24 * time.Hour

// rotate makes a key in the place of another and shows its token, this once.
func rotate(x *exchange) (any, error) {
	what := apikey.Rotate{Grace: defaultGrace}
	var refusal *Refusal
	if text, given := x.body["gracePeriod"]; given {
		var ok bool
		if what.Grace, ok = parseDuration(text); !ok {
			return nil, invalidField("gracePeriod", `gracePeriod must be a duration such as "24h", "7d" or "0"`)
		}
	}
	if text, given := x.body["expiresAt"]; given {
		if what.ExpiresAt, refusal = readEnd(text); refusal != nil {
			return nil, refusal
		}
	}
	id, ok := apikey.ParseID(x.id)
	if !ok {
		return nil, NotFound()
	}
	if what.Once, refusal = x.once("rotate " + x.id); refusal != nil {
		return nil, refusal
	}
	issued, err := x.ring.Rotate(x.Context(), x.by, id, what)
	return newKey(issued, err)
}

// revoke ends a key, now and for good, and shows what is left of it.
func revoke(x *exchange) (any, error) { return onKey(x, x.ring.Revoke) }

// revokeWhere ends all keys of an owner, or all that a key has minted.
func revokeWhere(x *exchange) (any, error) {
	which := apikey.Filter{UserID: x.body["userId"], ServiceAccountID: x.body["serviceAccountId"]}
	if text, given := x.body["mintedBy"]; given {
		var ok bool
		if which.MintedBy, ok = apikey.ParseID(text); !ok {
			return nil, invalidField("mintedBy", "mintedBy must be the id of an API key")
		}
	}
	revoked, err := x.ring.RevokeWhere(x.Context(), x.by, which)
	if err != nil {
		return nil, err
	}
	return struct {
		Revoked int `json:"revoked"`
	}{revoked}, nil
}

// verify tells what key of the caller's organization a token belongs to.
func verify(x *exchange) (any, error) {
	key, err := x.ring.Inspect(x.Context(), x.by, x.body["key"])
	if errors.Is(err, apikey.ErrNotFound) {
		return nil, NotAToken()
	}
	if err != nil {
		return nil, err
	}
	return newKeyData(&key), nil
}

func onKey(x *exchange, do func(context.Context, apikey.Principal, apikey.ID) (apikey.Key, error)) (any, error) {
	id, ok := apikey.ParseID(x.id)
	if !ok {
		return nil, NotFound() // as for an id that nobody has
	}
	key, err := do(x.Context(), x.by, id)
	if err != nil {
		return nil, err
	}
	return newKeyData(&key), nil
}
