package management_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// holder is the principal of a key that was created with a body.
func (s *service) holder(t testing.TB, who apikey.Principal, body string) (map[string]any, apikey.Principal) {
	t.Helper()
	data := s.mustCreate(t, who, body)
	v, err := s.ring.Verify(t.Context(), data["key"].(string))
	if err != nil || !v.Allowed() {
		t.Fatalf("%v, %v", v.Reason, err)
	}
	return data, v.Principal()
}

func TestPatchChangesWhatItNamesAndClearsWithNull(t *testing.T) {
	s := newService(t)
	const full = `{"name":"old","description":"old","expiresAt":"2098-01-01T00:00:00Z","scope":"read-write"}`
	for name, test := range map[string]struct {
		body string
		want map[string]any // nil: absent
	}{
		"nothing":               {`{}`, map[string]any{"name": "old", "description": "old"}},
		"no body":               {``, map[string]any{"name": "old", "description": "old"}},
		"name":                  {`{"name":"new"}`, map[string]any{"name": "new", "description": "old", "scope": "read-write"}},
		"description":           {`{"description":"new"}`, map[string]any{"name": "old", "description": "new"}},
		"null description":      {`{"description":null}`, map[string]any{"name": "old", "description": nil}},
		"empty description":     {`{"description":""}`, map[string]any{"description": nil}},
		"scope":                 {`{"scope":"read"}`, map[string]any{"scope": "read", "expiresAt": "2098-01-01T00:00:00Z"}},
		"null scope is no word": {`{"scope":null,"name":null}`, map[string]any{"scope": "read-write", "name": "old"}},
		"expiresAt":             {`{"expiresAt":"2099-01-01T01:00:00+01:00"}`, map[string]any{"expiresAt": "2099-01-01T00:00:00Z"}},
		"null expiresAt":        {`{"expiresAt":null}`, map[string]any{"expiresAt": nil, "name": "old"}},
		"all":                   {`{"name":"n","description":"d","scope":"read","expiresAt":null}`, map[string]any{"name": "n", "description": "d", "scope": "read", "expiresAt": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			created := s.mustCreate(t, alice, full)
			rest := "/" + created["id"].(string)
			a := s.call(t, alice, "PATCH", rest, test.body)
			if a.status != 200 || a.data["key"] != nil {
				t.Fatalf("%d %s", a.status, a.bytes)
			}
			for field, want := range test.want {
				if a.data[field] != want {
					t.Errorf("%s = %v, want %v", field, a.data[field], want)
				}
			}
			if seen := s.call(t, alice, "GET", rest, ""); seen.bytes != a.bytes {
				t.Errorf("seen %s, told %s", seen.bytes, a.bytes)
			}
			v, err := s.ring.Verify(t.Context(), created["key"].(string))
			if err != nil || !v.Allowed() || v.Scope.String() != a.data["scope"] || v.ExpiresAt.IsZero() != (a.data["expiresAt"] == nil) {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

func TestPatchThatIsRefusedNamesTheReason(t *testing.T) {
	s := newService(t)
	target := "/" + s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
	own, self := s.holder(t, alice, `{"name":"own","scope":"read-write","expiresAt":"2098-01-01T00:00:00Z"}`)
	gone := s.mustCreate(t, alice, `{"name":"gone"}`)
	rotated := s.mustCreate(t, alice, `{"name":"rotated"}`)
	s.call(t, alice, "DELETE", "/"+gone["id"].(string), "")
	if a := s.call(t, alice, "POST", "/"+rotated["id"].(string)+"/rotate", ""); a.status != 200 {
		t.Fatal(a.bytes)
	}
	for name, test := range map[string]struct {
		who           apikey.Principal
		rest, body    string
		status        int
		reason, field string
	}{
		"empty name":         {alice, target, `{"name":""}`, 400, "invalid_field", "name"},
		"empty expiry":       {alice, target, `{"expiresAt":""}`, 400, "invalid_field", "expiresAt"},
		"past expiry":        {alice, target, `{"expiresAt":"2020-01-01T00:00:00Z"}`, 400, "invalid_field", "expiresAt"},
		"expiry, no time":    {alice, target, `{"expiresAt":"tomorrow"}`, 400, "invalid_field", "expiresAt"},
		"unknown scope":      {alice, target, `{"scope":"admin"}`, 400, "invalid_field", "scope"},
		"number":             {alice, target, `{"name":1}`, 400, "invalid_field", "name"},
		"owner":              {alice, target, `{"userId":"bob"}`, 400, "unknown_field", "userId"},
		"owner, operator":    {operator, target, `{"userId":"bob"}`, 400, "unknown_field", "userId"},
		"twice":              {alice, target, `{"name":"a","name":"b"}`, 400, "duplicate_field", "name"},
		"array":              {alice, target, `[]`, 400, "invalid_body", ""},
		"read key":           {reader, target, `{"name":"x"}`, 403, "insufficient_scope", ""},
		"foreign":            {mallory, target, `{"name":"x"}`, 404, "not_found", ""},
		"revoked":            {alice, "/" + gone["id"].(string), `{"name":"x"}`, 409, "not_active", ""},
		"rotated, expiry":    {alice, "/" + rotated["id"].(string), `{"expiresAt":null}`, 409, "not_active", ""},
		"own life":           {self, "/" + own["id"].(string), `{"expiresAt":"2099-01-01T00:00:00Z"}`, 403, "own_life", "expiresAt"},
		"own life, for ever": {self, "/" + own["id"].(string), `{"expiresAt":null}`, 403, "own_life", "expiresAt"},
		"the collection":     {alice, "", `{"name":"x"}`, 405, "method_not_allowed", ""},
		"self":               {self, "/self", `{"name":"x"}`, 405, "method_not_allowed", ""},
	} {
		if a := s.call(t, test.who, "PATCH", test.rest, test.body); a.status != test.status || a.reason() != test.reason || a.field() != test.field {
			t.Errorf("%s: %d %s %q: %s", name, a.status, a.reason(), a.field(), a.message)
		}
	}
	r := httptest.NewRequest("PATCH", mount+target, strings.NewReader(`{"name":"x"}`))
	if a := s.send(t, alice, r); a.status != 415 {
		t.Errorf("without a media type: %d", a.status)
	}
	r = httptest.NewRequest("PATCH", mount+target, strings.NewReader(`{"name":"x"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if a := s.send(t, alice, r); a.status != 403 || a.reason() != "cross_site" {
		t.Errorf("from another site: %d", a.status)
	}
	if a := s.call(t, alice, "GET", target, ""); a.data["name"] != "first" {
		t.Errorf("changed all the same: %s", a.bytes)
	}
}

func TestRotateHandsOutANewTokenOnce(t *testing.T) {
	s := newService(t)
	for name, test := range map[string]struct {
		body  string
		grace time.Duration // of the old key
		end   any
	}{
		"no body":     {"", 24 * time.Hour, nil},
		"empty":       {"{}", 24 * time.Hour, nil},
		"null":        {`{"gracePeriod":null,"expiresAt":null}`, 24 * time.Hour, nil},
		"zero":        {`{"gracePeriod":"0"}`, 0, nil},
		"zero s":      {`{"gracePeriod":"0s"}`, 0, nil},
		"an hour":     {`{"gracePeriod":"1h"}`, time.Hour, nil},
		"90 min":      {`{"gracePeriod":"1h30m"}`, 90 * time.Minute, nil},
		"a week":      {`{"gracePeriod":"7d"}`, 7 * 24 * time.Hour, nil},
		"with an end": {`{"expiresAt":"2099-01-01T00:00:00Z"}`, 24 * time.Hour, "2099-01-01T00:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			old := s.mustCreate(t, alice, `{"name":"first","description":"d","scope":"read-write"}`)
			rest := "/" + old["id"].(string)
			a := s.call(t, alice, "POST", rest+"/rotate", test.body)
			if a.status != 200 || a.data["key"] == nil || a.data["key"] == old["key"] || a.data["id"] == old["id"] ||
				a.data["name"] != "first" || a.data["description"] != "d" || a.data["scope"] != "read-write" || a.data["userId"] != "alice" || a.data["expiresAt"] != test.end {
				t.Fatalf("%d %s", a.status, a.bytes)
			}
			seen := s.call(t, alice, "GET", rest, "")
			end, err := time.Parse(time.RFC3339, fmt.Sprint(seen.data["expiresAt"]))
			if seen.data["replacedBy"] != a.data["id"] || err != nil || end.Sub(s.ring.Now()).Round(time.Minute) != test.grace {
				t.Errorf("old key: %s", seen.bytes)
			}
			if again := s.call(t, alice, "GET", "/"+a.data["id"].(string), ""); again.data["key"] != nil {
				t.Error("the token is shown again")
			}
			v, _ := s.ring.Verify(t.Context(), old["key"].(string))
			if v.Allowed() != (test.grace > 0) {
				t.Errorf("old token: %s", v.Reason)
			}
			if v, _ := s.ring.Verify(t.Context(), a.data["key"].(string)); !v.Allowed() {
				t.Errorf("new token: %s", v.Reason)
			}
			if a := s.call(t, alice, "POST", rest+"/rotate", test.body); a.status != 409 || a.reason() != "not_active" {
				t.Errorf("again: %d %s", a.status, a.reason())
			}
		})
	}
}

func TestRotateThatIsRefusedNamesTheReason(t *testing.T) {
	s := newService(t)
	id := s.mustCreate(t, alice, `{"name":"first"}`)["id"].(string)
	rest := "/" + id + "/rotate"
	bob := apikey.Principal{OrganizationID: "acme", UserID: "bob", Scope: apikey.ScopeReadWrite}
	for name, test := range map[string]struct {
		who           apikey.Principal
		rest, body    string
		status        int
		reason, field string
	}{
		"negative grace": {alice, rest, `{"gracePeriod":"-1h"}`, 400, "invalid_field", "gracePeriod"},
		"grace no time":  {alice, rest, `{"gracePeriod":"soon"}`, 400, "invalid_field", "gracePeriod"},
		"grace a number": {alice, rest, `{"gracePeriod":24}`, 400, "invalid_field", "gracePeriod"},
		"grace unitless": {alice, rest, `{"gracePeriod":"24"}`, 400, "invalid_field", "gracePeriod"},
		"empty grace":    {alice, rest, `{"gracePeriod":""}`, 400, "invalid_field", "gracePeriod"},
		"huge grace":     {alice, rest, `{"gracePeriod":"65535d"}`, 400, "invalid_field", "gracePeriod"},
		"overflow":       {alice, rest, `{"gracePeriod":"9999999999999d"}`, 400, "invalid_field", "gracePeriod"},
		"past expiry":    {alice, rest, `{"expiresAt":"2020-01-01T00:00:00Z"}`, 400, "invalid_field", "expiresAt"},
		"unknown":        {alice, rest, `{"grace":"1h"}`, 400, "unknown_field", "grace"},
		"read key":       {reader, rest, ``, 403, "insufficient_scope", ""},
		"another user":   {bob, rest, ``, 403, "not_owner", ""},
		"foreign":        {mallory, rest, ``, 404, "not_found", ""},
		"self":           {alice, "/self/rotate", ``, 404, "not_found", ""},
		"no id":          {alice, "//rotate", ``, 404, "not_found", ""},
		"deeper":         {alice, rest + "/x", ``, 404, "not_found", ""},
	} {
		if a := s.call(t, test.who, "POST", test.rest, test.body); a.status != test.status || a.reason() != test.reason || a.field() != test.field {
			t.Errorf("%s: %d %s %q: %s", name, a.status, a.reason(), a.field(), a.message)
		}
	}
	if a := s.call(t, alice, "GET", rest, ""); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d, Allow %q", a.status, a.header.Get("Allow"))
	}
	if a := s.call(t, alice, "GET", "/"+id, ""); a.data["replacedBy"] != nil {
		t.Error("rotated all the same")
	}
}

func TestSelfIsTheKeyOfTheCaller(t *testing.T) {
	s := newService(t)
	for _, scope := range []string{"read", "read-write"} {
		own, self := s.holder(t, alice, `{"name":"own","scope":"`+scope+`"}`)
		a := s.call(t, self, "GET", "/self", "")
		if a.status != 200 || a.data["id"] != own["id"] || a.data["key"] != nil {
			t.Errorf("%s: %d %s", scope, a.status, a.bytes)
		}
		if head := s.call(t, self, "HEAD", "/self", ""); head.status != 200 {
			t.Errorf("HEAD: %d", head.status)
		}
	}
	for name, who := range map[string]apikey.Principal{"another identity": alice, "operator": operator} {
		if a := s.call(t, who, "GET", "/self", ""); a.status != 404 {
			t.Errorf("%s has no key: %d", name, a.status)
		}
	}
}

func TestVerifyTellsOnlyOfGoodKeysOfTheOrganization(t *testing.T) {
	s := newService(t)
	own := s.mustCreate(t, alice, `{"name":"own"}`)
	foreign := s.mustCreate(t, mallory, `{"name":"foreign"}`)
	revoked := s.mustCreate(t, alice, `{"name":"revoked"}`)
	s.call(t, alice, "DELETE", "/"+revoked["id"].(string), "")
	body := func(token any) string { return fmt.Sprintf(`{"key":%q}`, token) }

	a := s.call(t, alice, "POST", "/verify", body(own["key"]))
	if a.status != 200 || a.data["id"] != own["id"] || a.data["key"] != nil || a.data["lastUsedAt"] != nil {
		t.Errorf("%d %s", a.status, a.bytes)
	}
	absent := s.call(t, alice, "POST", "/verify", body("nonsense"))
	for name, token := range map[string]any{"foreign": foreign["key"], "revoked": revoked["key"], "long": strings.Repeat("x", 10_000)} {
		if a := s.call(t, alice, "POST", "/verify", body(token)); a.status != 404 || a.bytes != absent.bytes {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
	}
	for name, test := range map[string]struct {
		who    apikey.Principal
		body   string
		status int
		reason string
	}{
		"read key": {reader, body(own["key"]), 403, "insufficient_scope"},
		"no key":   {alice, `{}`, 400, "missing_field"},
		"no body":  {alice, ``, 400, "invalid_body"},
		"empty":    {alice, `{"key":""}`, 400, "invalid_field"},
		"unknown":  {alice, `{"token":"x"}`, 400, "unknown_field"},
	} {
		if a := s.call(t, test.who, "POST", "/verify", test.body); a.status != test.status || a.reason() != test.reason || strings.Contains(a.bytes, own["key"].(string)) {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
	}
	if a := s.call(t, alice, "GET", "/verify", ""); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d", a.status)
	}
}

func TestRevokeEndsTheKeysOfAnOwnerOrAMinter(t *testing.T) {
	s := newService(t)
	minter, self := s.holder(t, alice, `{"name":"minter","scope":"read-write"}`)
	s.mustCreate(t, self, `{"name":"minted"}`)
	s.mustCreate(t, bot, `{"name":"bot's"}`)
	foreign := s.mustCreate(t, mallory, `{"name":"foreign"}`)
	for name, test := range map[string]struct {
		who    apikey.Principal
		body   string
		status int
		reason string
	}{
		"nothing":  {alice, `{}`, 400, "invalid_field"},
		"no body":  {alice, ``, 400, "invalid_field"},
		"bad id":   {alice, `{"mintedBy":"x"}`, 400, "invalid_field"},
		"empty":    {alice, `{"userId":""}`, 400, "invalid_field"},
		"unknown":  {alice, `{"user":"x"}`, 400, "unknown_field"},
		"read key": {reader, `{"userId":"alice"}`, 403, "insufficient_scope"},
	} {
		if a := s.call(t, test.who, "POST", "/revoke", test.body); a.status != test.status || a.reason() != test.reason {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
	}
	for _, test := range []struct {
		body string
		want float64
	}{
		{`{"userId":"mallory"}`, 0},
		{`{"mintedBy":"` + minter["id"].(string) + `"}`, 1},
		{`{"serviceAccountId":"bot"}`, 1},
		{`{"userId":"alice"}`, 1},
		{`{"userId":"alice"}`, 0},
	} {
		if a := s.call(t, operator, "POST", "/revoke", test.body); a.status != 200 || a.data["revoked"] != test.want {
			t.Errorf("%s: %d %s", test.body, a.status, a.bytes)
		}
	}
	if v, _ := s.ring.Verify(t.Context(), foreign["key"].(string)); !v.Allowed() {
		t.Error("a key of another organization was revoked")
	}
}

func TestReadKeyMayDoNothingButLookAtItself(t *testing.T) {
	s := newService(t)
	own, self := s.holder(t, alice, `{"name":"own"}`)
	rest := "/" + own["id"].(string)
	for _, test := range []struct {
		method, rest string
		status       int
	}{
		{"GET", "/self", 200}, {"GET", rest, 200}, {"HEAD", rest, 200},
		{"GET", "", 403}, {"POST", "", 403}, {"PATCH", rest, 403}, {"DELETE", rest, 403}, {"POST", rest + "/rotate", 403}, {"POST", "/verify", 403}, {"POST", "/revoke", 403},
	} {
		if a := s.call(t, self, test.method, test.rest, `{"name":"x","key":"x"}`); a.status != test.status || a.status == 403 && a.reason() != "insufficient_scope" {
			t.Errorf("%s %s: %d %s", test.method, test.rest, a.status, a.bytes)
		}
	}
}
