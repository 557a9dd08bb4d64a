package management

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// list shows a page of the keys of the caller's organization, newest first.
func list(x *exchange) (any, error) {
	query, cursors, err := parseListQuery(x.by, x.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	page, err := x.ring.List(x.Context(), x.by, query)
	if err != nil {
		return nil, err
	}
	data := pageData{Items: make([]keyData, len(page.Keys)), NextCursor: cursors.write(page.Next)}
	for i := range page.Keys {
		data.Items[i] = newKeyData(&page.Keys[i])
	}
	return data, nil
}

// How many keys a page holds.
const (
	defaultLimit = 20
	maxLimit     = 100
)

// parameters reads each query parameter of a list but the cursor.
var parameters = map[string]func(*apikey.ListQuery, string) error{
	"limit": func(q *apikey.ListQuery, text string) error {
		limit, err := strconv.ParseUint(text, 10, 16)
		if err != nil || limit < 1 || limit > maxLimit {
			return badParameter("limit", fmt.Sprintf("limit must be a number from 1 to %d", maxLimit))
		}
		q.Limit = int(limit)
		return nil
	},
	"status": func(q *apikey.ListQuery, text string) (err error) {
		var ok bool
		if q.Status, ok = apikey.ParseStatus(text); !ok {
			return badParameter("status", "status must be active, expired or revoked")
		}
		return nil
	},
	"scope": func(q *apikey.ListQuery, text string) error {
		scope, ok := apikey.ParseScope(text)
		if !ok {
			return badParameter("scope", "scope must be read or read-write")
		}
		q.Scope = &scope
		return nil
	},
	"userId": func(q *apikey.ListQuery, text string) error {
		q.UserID = text
		return notEmpty("userId", text)
	},
	"serviceAccountId": func(q *apikey.ListQuery, text string) error {
		q.ServiceAccountID = text
		return notEmpty("serviceAccountId", text)
	},
	"unusedSince": func(q *apikey.ListQuery, text string) error {
		var ok bool
		if q.UnusedSince, ok = parseTime(text); !ok {
			return badParameter("unusedSince", "unusedSince must be a time in the form of RFC 3339, such as 2026-01-31T12:00:00Z")
		}
		return nil
	},
}

func notEmpty(name, text string) error {
	if text == "" {
		return badParameter(name, name+" must not be empty: give a value, or leave it out")
	}
	return nil
}

// parseListQuery reads the query of a list. A parameter that it does not know
// is refused: a filter that is not applied shows what was not asked for.
func parseListQuery(by apikey.Principal, raw string) (query apikey.ListQuery, cursors cursorBook, _ error) {
	query.Limit = defaultLimit
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query, cursors, badQuery()
	}
	for _, name := range slices.Sorted(maps.Keys(values)) { // the same refusal each time
		given := values[name]
		read, known := parameters[name]
		switch {
		case !known && name != "cursor":
			return query, cursors, unknownParameter(name)
		case len(given) > 1:
			return query, cursors, badParameter(name, name+" is given twice: send each parameter once")
		case known:
			if err := read(&query, given[0]); err != nil {
				return query, cursors, err
			}
		}
	}
	cursors = newCursorBook(by, values)
	if values.Has("cursor") {
		var ok bool
		if query.After, ok = cursors.read(values.Get("cursor")); !ok {
			return query, cursors, badParameter("cursor", "cursor must be the nextCursor of an earlier page of the same list, with the same filters")
		}
	}
	return query, cursors, nil
}

// cursorBook writes and reads the cursors of one list: the id of the last key of
// a page, and a mark of whose list it is and how it is filtered. The mark keeps
// honest clients from mixing lists up; whose keys are shown is not up to it.
type cursorBook [8]byte

func newCursorBook(by apikey.Principal, values url.Values) (book cursorBook) {
	of := url.Values{"": {by.OrganizationID}}
	for name, given := range values {
		if name != "cursor" && name != "limit" {
			of[name] = given
		}
	}
	sum := sha256.Sum256([]byte(of.Encode()))
	copy(book[:], sum[:])
	return book
}

func (b cursorBook) write(after apikey.ID) string {
	if after.IsZero() {
		return ""
	}
	return base64.RawURLEncoding.Strict().EncodeToString(append(after[:], b[:]...))
}

func (b cursorBook) read(cursor string) (after apikey.ID, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) != len(after)+len(b) {
		return after, false
	}
	after = apikey.ID(raw[:len(after)])
	return after, b.write(after) == cursor
}

func badQuery() *Refusal {
	return badParameter("", "the query cannot be read: send name=value pairs, percent-encoded and joined by &")
}

func unknownParameter(name string) *Refusal {
	f := &Refusal{Status: http.StatusBadRequest, Reason: ReasonUnknownParameter}
	which := ""
	if repeatable(name) {
		f.Field, which = name, fmt.Sprintf(" %q", name)
	}
	f.Message = "unknown query parameter" + which + ": the parameters are cursor, " + strings.Join(slices.Sorted(maps.Keys(parameters)), ", ")
	return f
}

func badParameter(name, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonInvalidParameter, Field: name, Message: message}
}
