package management_test

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestListShowsEveryKeyOnceNewestFirst(t *testing.T) {
	s := newService(t)
	var want []string
	for i := range 45 {
		id := s.mustCreate(t, alice, fmt.Sprintf(`{"name":"key %d"}`, i))["id"].(string)
		want = append([]string{id}, want...)
		s.mustCreate(t, mallory, `{"name":"not of acme"}`)
	}
	for query, pages := range map[string][]int{
		"": {20, 20, 5}, "limit=1": nil, "limit=9": {9, 9, 9, 9, 9}, "limit=44": {44, 1}, "limit=45": {45}, "limit=100": {45},
	} {
		var got []string
		var sizes []int
		for rest := "?" + query; rest != ""; {
			a := s.call(t, alice, "GET", rest, "")
			if a.status != 200 {
				t.Fatalf("%s: %d %s", rest, a.status, a.message)
			}
			items := a.data["items"].([]any)
			sizes = append(sizes, len(items))
			for _, item := range items {
				got = append(got, item.(map[string]any)["id"].(string))
			}
			rest = ""
			if next, more := a.data["nextCursor"].(string); more {
				rest = "?" + query + "&cursor=" + url.QueryEscape(next)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || pages != nil && fmt.Sprint(sizes) != fmt.Sprint(pages) {
			t.Errorf("%q: pages of %v: %v", query, sizes, got)
		}
	}
}

func TestListOfNothingIsAnEmptyList(t *testing.T) {
	if a := newService(t).call(t, alice, "GET", "", ""); a.status != 200 || !strings.Contains(a.bytes, `"data":{"items":[]}`) {
		t.Errorf("%d %s", a.status, a.bytes)
	}
}

func TestQueryThatIsNotUnderstoodIsRefused(t *testing.T) {
	s := newService(t)
	for name, test := range map[string]struct{ query, reason, field string }{
		"unknown":            {"organizationId=globex", "unknown_parameter", "organizationId"},
		"unknown, empty":     {"x", "unknown_parameter", "x"},
		"wrong case":         {"Limit=5", "unknown_parameter", "Limit"},
		"key in the query":   {"api_key=abc", "unknown_parameter", "api_key"},
		"known and unknown":  {"limit=5&offset=5", "unknown_parameter", "offset"},
		"a token for a name": {"ak_0354qXpO6kMQ01CHMxm5=1", "unknown_parameter", ""},
		"many":               {"limit=0&bogus=1&status=x&a2=1", "unknown_parameter", "a2"},
		"limit of zero":      {"limit=0", "invalid_parameter", "limit"},
		"limit over 100":     {"limit=101", "invalid_parameter", "limit"},
		"negative limit":     {"limit=-1", "invalid_parameter", "limit"},
		"limit with a sign":  {"limit=%2B5", "invalid_parameter", "limit"},
		"limit not a number": {"limit=ten", "invalid_parameter", "limit"},
		"huge limit":         {"limit=99999999999999999999", "invalid_parameter", "limit"},
		"limit in hex":       {"limit=0x10", "invalid_parameter", "limit"},
		"empty limit":        {"limit=", "invalid_parameter", "limit"},
		"two limits":         {"limit=5&limit=5", "invalid_parameter", "limit"},
		"empty cursor":       {"cursor=", "invalid_parameter", "cursor"},
		"made-up cursor":     {"cursor=abc", "invalid_parameter", "cursor"},
		"two cursors":        {"cursor=a&cursor=b", "invalid_parameter", "cursor"},
		"semicolon":          {"limit=5;cursor=x", "invalid_parameter", ""},
		"broken escape":      {"limit=%zz", "invalid_parameter", ""},
		"100,000 parameters": {strings.Repeat("limit=5&", 100_000), "invalid_parameter", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", mount, nil)
			r.URL.RawQuery = test.query
			a := s.send(t, alice, r)
			if a.status != 400 || a.reason() != test.reason || a.field() != test.field {
				t.Errorf("%d %s %q: %s", a.status, a.reason(), a.field(), a.message)
			}
			if a.reason() == "unknown_parameter" && !strings.Contains(a.message, "cursor, limit, scope") {
				t.Errorf("the known parameters are not named: %s", a.message)
			}
		})
	}
}

func TestRevokedKeyStaysAndShowsWhenItWasRevoked(t *testing.T) {
	s := newService(t)
	created := s.mustCreate(t, alice, `{"name":"first"}`)
	rest := "/" + created["id"].(string)
	first := s.call(t, alice, "DELETE", rest, "a body is nobody's business")
	if first.status != 200 || first.data["revokedAt"] == nil || first.data["name"] != "first" {
		t.Fatalf("%d %v", first.status, first.data)
	}
	if again := s.call(t, alice, "DELETE", rest, ""); again.bytes != first.bytes {
		t.Errorf("revoked again: %s, first %s", again.bytes, first.bytes)
	}
	if seen := s.call(t, alice, "GET", rest, ""); seen.bytes != first.bytes {
		t.Errorf("seen: %s, first %s", seen.bytes, first.bytes)
	}
	if verdict, err := s.ring.Verify(t.Context(), created["key"].(string)); err != nil || verdict.Reason != apikey.ReasonRevoked {
		t.Errorf("the token is answered %v, %v", verdict.Reason, err)
	}
}

func TestForeignKeyAnswersLikeAnAbsentOne(t *testing.T) {
	s := newService(t)
	id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
	absent := "key_0000000000000000000001"
	for _, method := range []string{"GET", "DELETE"} {
		foreign := s.call(t, mallory, method, "/"+id, "")
		for _, rest := range []string{"/" + absent, "/nonsense"} {
			if a := s.call(t, mallory, method, rest, ""); a.status != 404 || a.bytes != foreign.bytes || fmt.Sprint(a.header) != fmt.Sprint(foreign.header) {
				t.Errorf("%s %s: %d %s, foreign: %s", method, rest, a.status, a.bytes, foreign.bytes)
			}
		}
	}
	if a := s.call(t, alice, "GET", "/"+id, ""); a.status != 200 || a.data["revokedAt"] != nil {
		t.Errorf("after the attempts: %d %v", a.status, a.data)
	}
}

func TestReadKeySeesItselfOnly(t *testing.T) {
	s := newService(t)
	other := s.mustCreate(t, alice, `{"name":"other"}`)["id"].(string)
	own := s.mustCreate(t, alice, `{"name":"own"}`)
	verdict, err := s.ring.Verify(t.Context(), own["key"].(string))
	if err != nil || !verdict.Allowed() {
		t.Fatalf("%v, %v", verdict.Reason, err)
	}
	for _, test := range []struct {
		method, rest string
		status       int
	}{
		{"GET", "/" + own["id"].(string), 200},
		{"GET", "/" + other, 403},
		{"GET", "", 403},
		{"GET", "?nonsense", 403},
		{"POST", "", 403},
		{"DELETE", "/" + other, 403},
		{"DELETE", "/" + own["id"].(string), 403},
	} {
		a := s.call(t, verdict.Principal(), test.method, test.rest, `{"name":"x"}`)
		if a.status != test.status || a.status == 403 && (a.reason() != "insufficient_scope" || !strings.Contains(a.header.Get("WWW-Authenticate"), "insufficient_scope")) {
			t.Errorf("%s %s: %d %s %v", test.method, test.rest, a.status, a.reason(), a.header)
		}
	}
}

func TestKeyThatDiedOnTheWayIsAnsweredLikeAnyBadKey(t *testing.T) {
	s := newService(t)
	own := s.mustCreate(t, alice, `{"name":"own","scope":"read-write"}`)
	verdict, err := s.ring.Verify(t.Context(), own["key"].(string))
	if err != nil || !verdict.Allowed() {
		t.Fatalf("%v, %v", verdict.Reason, err)
	}
	s.call(t, alice, "DELETE", "/"+own["id"].(string), "")
	a := s.call(t, verdict.Principal(), "POST", "", `{"name":"x"}`)
	if a.status != 401 || a.header.Get("WWW-Authenticate") != `Bearer realm="keys", error="invalid_token"` {
		t.Errorf("%d %v", a.status, a.header)
	}
}
