package management_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestIdempotencyKeyMakesARepetitionARefusal(t *testing.T) {
	s := newService(t)
	send := func(who apikey.Principal, rest, body string, keys ...string) answer {
		r := httptest.NewRequest("POST", mount+rest, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header["Idempotency-Key"] = keys
		return s.send(t, who, r)
	}
	first := send(alice, "", `{"name":"first","scope":"read"}`, "a")
	id := first.data["id"].(string)
	rotated := send(alice, "/"+id+"/rotate", ``, "a")
	if first.status != 200 || rotated.status != 200 {
		t.Fatal(first.bytes, rotated.bytes)
	}
	for name, test := range map[string]struct {
		who        apikey.Principal
		rest, body string
		keys       []string
		status     int
		reason, id string
	}{
		"the same":             {alice, "", `{"name":"first","scope":"read"}`, []string{"a"}, 409, "idempotency_replayed", id},
		"spelt otherwise":      {alice, "", ` {"scope":"read", "name":"\u0066irst", "description":null}`, []string{"a"}, 409, "idempotency_replayed", id},
		"empty is absent":      {alice, "", `{"name":"first","scope":"read","description":""}`, []string{"a"}, 409, "idempotency_replayed", id},
		"another body":         {alice, "", `{"name":"other"}`, []string{"a"}, 422, "idempotency_reused", ""},
		"rotate, the same":     {alice, "/" + id + "/rotate", `{}`, []string{"a"}, 409, "idempotency_replayed", rotated.data["id"].(string)},
		"rotate, other body":   {alice, "/" + id + "/rotate", `{"gracePeriod":"1h"}`, []string{"a"}, 422, "idempotency_reused", ""},
		"another caller":       {bot, "", `{"name":"other"}`, []string{"a"}, 200, "", ""},
		"another tenant":       {mallory, "", `{"name":"other"}`, []string{"a"}, 200, "", ""},
		"another key":          {alice, "", `{"name":"first","scope":"read"}`, []string{"b"}, 200, "", ""},
		"255 bytes":            {alice, "", `{"name":"x"}`, []string{strings.Repeat("k", 255)}, 200, "", ""},
		"256 bytes":            {alice, "", `{"name":"x"}`, []string{strings.Repeat("k", 256)}, 400, "invalid_header", ""},
		"empty":                {alice, "", `{"name":"x"}`, []string{""}, 400, "invalid_header", ""},
		"two":                  {alice, "", `{"name":"x"}`, []string{"c", "c"}, 400, "invalid_header", ""},
		"space":                {alice, "", `{"name":"x"}`, []string{"a b"}, 400, "invalid_header", ""},
		"not ASCII":            {alice, "", `{"name":"x"}`, []string{"é"}, 400, "invalid_header", ""},
		"control":              {alice, "", `{"name":"x"}`, []string{"a\x7f"}, 400, "invalid_header", ""},
		"invalid body first":   {alice, "", `{}`, []string{"d"}, 400, "missing_field", ""},
		"which used not it up": {alice, "", `{"name":"x"}`, []string{"e"}, 200, "", ""},
	} {
		a := send(test.who, test.rest, test.body, test.keys...)
		got, _ := a.data["id"].(string)
		if a.status != test.status || a.reason() != test.reason || test.id != "" && got != test.id || a.status != 200 && a.data["key"] != nil {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
	}
}

func TestCursorIsBoundToItsTenantAndItsFilter(t *testing.T) {
	s := newService(t)
	for range 3 {
		s.mustCreate(t, alice, `{"name":"n"}`)
		s.mustCreate(t, mallory, `{"name":"n"}`)
	}
	cursor := func(query string) string {
		return url.QueryEscape(s.call(t, alice, "GET", "?limit=1&"+query, "").data["nextCursor"].(string))
	}
	plain, filtered := cursor(""), cursor("status=active&userId=alice")
	for name, test := range map[string]struct {
		who    apikey.Principal
		query  string
		status int
	}{
		"the same":           {alice, "limit=1&cursor=" + plain, 200},
		"another limit":      {alice, "limit=2&cursor=" + plain, 200},
		"another caller":     {bot, "cursor=" + plain, 200},
		"the same filter":    {alice, "cursor=" + filtered + "&userId=alice&status=active", 200},
		"another tenant":     {mallory, "limit=1&cursor=" + plain, 400},
		"a filter more":      {alice, "status=active&cursor=" + plain, 400},
		"a filter less":      {alice, "cursor=" + filtered, 400},
		"another filter":     {alice, "status=revoked&userId=alice&cursor=" + filtered, 400},
		"cut":                {alice, "cursor=" + plain[1:], 400},
		"a bit of the mark":  {alice, "cursor=" + plain[:len(plain)-2] + "AA", 400},
		"with an ending":     {alice, "cursor=" + plain + "%3D", 400},
		"with a line inside": {alice, "cursor=" + plain[:8] + "%0A" + plain[8:], 400},
	} {
		if a := s.call(t, test.who, "GET", "?"+test.query, ""); a.status != test.status || a.status == 400 && (a.reason() != "invalid_parameter" || a.field() != "cursor") {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
	}
}

func TestListIsFiltered(t *testing.T) {
	s := newService(t)
	s.mustCreate(t, alice, `{"name":"read"}`)
	s.mustCreate(t, alice, `{"name":"write","scope":"read-write"}`)
	s.mustCreate(t, bot, `{"name":"bot"}`)
	gone := s.mustCreate(t, alice, `{"name":"gone"}`)
	s.call(t, alice, "DELETE", "/"+gone["id"].(string), "")
	used := s.mustCreate(t, alice, `{"name":"used"}`)
	v, _ := s.ring.Verify(t.Context(), used["key"].(string))
	s.ring.Use(&v, "192.0.2.1", "ua")
	for query, want := range map[string]string{
		"":                                 "used gone bot write read",
		"status=active":                    "used bot write read",
		"status=revoked":                   "gone",
		"status=expired":                   "",
		"scope=read-write":                 "write",
		"scope=read&status=active":         "used bot read",
		"userId=alice":                     "used gone write read",
		"serviceAccountId=bot":             "bot",
		"userId=bot":                       "",
		"unusedSince=2026-01-01T00:00:00Z": "gone bot write read",
		"unusedSince=2027-01-01T00:00:00Z": "used gone bot write read",
	} {
		a := s.call(t, alice, "GET", "?"+query, "")
		if a.status != 200 {
			t.Fatalf("%s: %s", query, a.bytes)
		}
		var names []string
		for _, item := range a.data["items"].([]any) {
			names = append(names, item.(map[string]any)["name"].(string))
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	for query, field := range map[string]string{
		"status=dead": "status", "status=": "status", "scope=admin": "scope", "userId=": "userId", "serviceAccountId=": "serviceAccountId",
		"unusedSince=yesterday": "unusedSince", "userId=a&userId=b": "userId",
	} {
		if a := s.call(t, alice, "GET", "?"+query, ""); a.status != 400 || a.reason() != "invalid_parameter" || a.field() != field {
			t.Errorf("%s: %d %s", query, a.status, a.bytes)
		}
	}
}
