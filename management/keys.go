package management

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
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
		http.MethodDelete: {run: revoke, scope: apikey.ScopeReadWrite},
	}
)

var createMembers = []member{
	{name: "name", required: true},
	{name: "description", blank: true},
	{name: "expiresAt"},
	{name: "scope"},
	{name: "serviceAccountId"},
	{name: "userId", operator: true},
}

// create makes a key and shows its token, this once.
func create(x *exchange) (any, error) {
	what := apikey.Issue{
		Name:             x.body["name"],
		Description:      x.body["description"],
		UserID:           x.body["userId"],
		ServiceAccountID: x.body["serviceAccountId"],
	}
	if text, given := x.body["scope"]; given {
		var ok bool
		if what.Scope, ok = apikey.ParseScope(text); !ok {
			return nil, invalidField("scope", `scope must be "read" or "read-write"`)
		}
	}
	if text, given := x.body["expiresAt"]; given {
		var ok bool
		if what.ExpiresAt, ok = parseTime(text); !ok {
			return nil, invalidField("expiresAt", "expiresAt must be a time in the future in the form of RFC 3339, such as 2099-01-31T12:00:00Z")
		}
	}
	issued, err := x.ring.Issue(x.Context(), x.by, what)
	if err != nil {
		return nil, err
	}
	data := newKeyData(&issued.Key)
	data.Token = issued.Token
	return data, nil
}

// list shows a page of the keys of the caller's organization, newest first.
func list(x *exchange) (any, error) {
	query, refusal := parseListQuery(x.URL.RawQuery)
	if refusal != nil {
		return nil, refusal
	}
	page, err := x.ring.List(x.Context(), x.by, query)
	if err != nil {
		return nil, err
	}
	data := pageData{Items: make([]keyData, len(page.Keys)), NextCursor: page.Next.String()}
	for i := range page.Keys {
		data.Items[i] = newKeyData(&page.Keys[i])
	}
	return data, nil
}

// get shows one key.
func get(x *exchange) (any, error) { return onKey(x, (*apikey.Keyring).Get) }

// revoke ends a key, now and for good, and shows what is left of it.
func revoke(x *exchange) (any, error) { return onKey(x, (*apikey.Keyring).Revoke) }

func onKey(x *exchange, do func(*apikey.Keyring, context.Context, apikey.Principal, apikey.ID) (apikey.Key, error)) (any, error) {
	id, ok := apikey.ParseID(x.id)
	if !ok {
		return nil, NotFound() // as for an id that nobody has
	}
	key, err := do(x.ring, x.Context(), x.by, id)
	if err != nil {
		return nil, err
	}
	return newKeyData(&key), nil
}

// How many keys a page holds.
const (
	defaultLimit = 20
	maxLimit     = 100
)

// parseListQuery reads the query of a list. A parameter that it does not know
// is refused: a filter that is not applied shows what was not asked for.
func parseListQuery(raw string) (apikey.ListQuery, *Refusal) {
	query := apikey.ListQuery{Limit: defaultLimit}
	parameters, err := url.ParseQuery(raw)
	if err != nil {
		return query, badParameter("", "the query cannot be read: send name=value pairs, percent-encoded and joined by &")
	}
	for name, values := range parameters {
		if name != "limit" && name != "cursor" {
			return query, &Refusal{
				Status: http.StatusBadRequest, Reason: ReasonUnknownParameter,
				Message: "unknown query parameter: the parameters are limit and cursor",
			}
		}
		if len(values) > 1 {
			return query, badParameter(name, name+" is given twice: send each parameter once")
		}
	}
	if parameters.Has("limit") {
		limit, err := strconv.ParseUint(parameters.Get("limit"), 10, 16)
		if err != nil || limit < 1 || limit > maxLimit {
			return query, badParameter("limit", fmt.Sprintf("limit must be a number from 1 to %d", maxLimit))
		}
		query.Limit = int(limit)
	}
	if parameters.Has("cursor") {
		var ok bool
		if query.After, ok = apikey.ParseID(parameters.Get("cursor")); !ok {
			return query, badParameter("cursor", "cursor must be the nextCursor of an earlier page")
		}
	}
	return query, nil
}

func badParameter(name, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonInvalidParameter, Field: name, Message: message}
}

// rfc3339 is the shape of RFC 3339 in capitals. time.Parse alone also takes a
// comma before the fraction, a fraction of any length and an offset of +24:00.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseTime reads an instant. The Keyring keeps it to the millisecond.
func parseTime(text string) (time.Time, bool) {
	if !rfc3339.MatchString(text) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, text)
	// The zero time would make a key that never ends. Past the year 9999, which
	// an offset can reach, RFC 3339 cannot write the time.
	return t, err == nil && !t.IsZero() && t.UTC().Year() <= 9999
}
