package management_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestCreateAnswersWithTheKeyAndItsTokenThisOnce(t *testing.T) {
	s := newService(t)
	created := s.mustCreate(t, alice, `{"name":"first","description":"for tests","scope":"read-write","expiresAt":"2099-01-31T12:00:00+02:00"}`)
	token, id := created["key"].(string), created["id"].(string)
	for field, want := range map[string]string{
		"name": "first", "description": "for tests", "scope": "read-write", "expiresAt": "2099-01-31T10:00:00Z",
		"organizationId": "acme", "userId": "alice", "createdBy": "alice",
		"keyPrefix": "ak_" + strings.TrimPrefix(id, "key_"),
	} {
		if created[field] != want {
			t.Errorf("%s = %v, want %s", field, created[field], want)
		}
	}
	if _, err := time.Parse("2006-01-02T15:04:05.999Z", created["createdAt"].(string)); err != nil {
		t.Error(err)
	}
	if verdict, err := s.ring.Verify(t.Context(), token); err != nil || !verdict.Allowed() || verdict.KeyID.String() != id {
		t.Errorf("the token is answered %v, %v", verdict.Reason, err)
	}
	for _, call := range [][2]string{{"GET", "/" + id}, {"GET", ""}, {"DELETE", "/" + id}, {"GET", "/" + id}} {
		a := s.call(t, alice, call[0], call[1], "")
		if a.status != 200 || strings.Contains(a.bytes, token[26:]) || strings.Contains(a.bytes, `"key":`) || !strings.Contains(a.bytes, id) {
			t.Errorf("%v: %d %s", call, a.status, a.bytes)
		}
	}
}

func TestOwnerAndScopeOfANewKey(t *testing.T) {
	for name, test := range map[string]struct {
		by            apikey.Principal
		body          string
		status        int
		user, account any
		scope, field  string
	}{
		"of a user":                          {alice, `{"name":"x"}`, 200, "alice", nil, "read", ""},
		"null is absent":                     {alice, `{"name":"x","description":null,"scope":null,"expiresAt":null,"serviceAccountId":null}`, 200, "alice", nil, "read", ""},
		"empty description is absent":        {alice, `{"name":"x","description":""}`, 200, "alice", nil, "read", ""},
		"white space around":                 {alice, " \t\r\n{ \"name\" : \"x\" } \n\n", 200, "alice", nil, "read", ""},
		"escaped field name":                 {alice, `{"n\u0061me":"x"}`, 200, "alice", nil, "read", ""},
		"read":                               {alice, `{"name":"x","scope":"read"}`, 200, "alice", nil, "read", ""},
		"read-write":                         {alice, `{"name":"x","scope":"read-write"}`, 200, "alice", nil, "read-write", ""},
		"of a service account, by a user":    {alice, `{"name":"x","serviceAccountId":"ci"}`, 200, nil, "ci", "read", ""},
		"of a service account, by itself":    {bot, `{"name":"x"}`, 200, nil, "bot", "read", ""},
		"of another service account":         {bot, `{"name":"x","serviceAccountId":"ci"}`, 200, nil, "ci", "read", ""},
		"of a user, by the operator":         {operator, `{"name":"x","userId":"carol"}`, 200, "carol", nil, "read", ""},
		"of an account, by the operator":     {operator, `{"name":"x","serviceAccountId":"ci"}`, 200, nil, "ci", "read", ""},
		"of nobody, by the operator":         {operator, `{"name":"x"}`, 400, nil, nil, "", "userId"},
		"of two, by the operator":            {operator, `{"name":"x","userId":"carol","serviceAccountId":"ci"}`, 200, nil, "ci", "read", ""},
		"of an empty user, by the operator":  {operator, `{"name":"x","userId":""}`, 400, nil, nil, "", "userId"},
		"of another user":                    {alice, `{"name":"x","userId":"carol"}`, 400, nil, nil, "", "userId"},
		"by a reader":                        {reader, `{"name":"x"}`, 403, nil, nil, "", ""},
		"by a reader, whatever is in it":     {reader, `{"nonsense`, 403, nil, nil, "", ""},
		"emoji and unassigned code points":   {alice, `{"name":"\ud83d\ude00 \u0378"}`, 200, "alice", nil, "read", ""},
		"markup, shell and template as text": {alice, `{"name":"<script>'; DROP $(id) {{.}} %s"}`, 200, "alice", nil, "read", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			a := s.call(t, test.by, "POST", "", test.body)
			if a.status != test.status || a.field() != test.field {
				t.Fatalf("%d %q: %s", a.status, a.field(), a.message)
			}
			if a.status != 200 {
				return
			}
			if a.data["userId"] != test.user || a.data["serviceAccountId"] != test.account || a.data["scope"] != test.scope {
				t.Errorf("data %v", a.data)
			}
			if a.data["createdBy"] != test.by.ID() || a.data["organizationId"] != "acme" || a.data["expiresAt"] != nil {
				t.Errorf("data %v", a.data)
			}
		})
	}
}

func TestExpiresAtIsRFC3339InTheFuture(t *testing.T) {
	for text, want := range map[string]string{ // "" is refused
		"2099-01-01T00:00:00Z":                "2099-01-01T00:00:00Z",
		"2099-01-01T00:00:00+00:00":           "2099-01-01T00:00:00Z",
		"2099-01-01T00:00:00-00:00":           "2099-01-01T00:00:00Z",
		"2099-01-01T05:30:00+05:30":           "2099-01-01T00:00:00Z",
		"2098-12-31T18:30:00-05:30":           "2099-01-01T00:00:00Z",
		"2099-01-01T23:59:00+23:59":           "2099-01-01T00:00:00Z",
		"2099-01-01T00:00:00.1Z":              "2099-01-01T00:00:00.1Z",
		"2099-01-01T00:00:00.120Z":            "2099-01-01T00:00:00.12Z",
		"2099-01-01T00:00:00.999999999Z":      "2099-01-01T00:00:00.999Z",
		"2099-01-01T00:00:00.0009Z":           "2099-01-01T00:00:00Z",
		"2096-02-29T00:00:00Z":                "2096-02-29T00:00:00Z",
		"9999-12-31T23:59:59Z":                "9999-12-31T23:59:59Z",
		"9999-12-31T23:59:59.999+00:01":       "9999-12-31T23:58:59.999Z",
		"9999-12-31T23:59:59-00:01":           "",
		"2099-01-01":                          "",
		"2099-01-01T00:00:00":                 "",
		"2099-01-01T00:00Z":                   "",
		"2099-01-01T00Z":                      "",
		"2099-01-01T00:00:00+24:00":           "",
		"2099-01-01T00:00:00+99:99":           "",
		"2099-01-01T00:00:00+05:60":           "",
		"2099-01-01T00:00:00+5:30":            "",
		"2099-01-01T00:00:00+0530":            "",
		"2099-01-01T00:00:00+05":              "",
		"2099-01-01T00:00:00 Z":               "",
		"2099-01-01T00:00:00z":                "",
		"2099-01-01t00:00:00Z":                "",
		"2099-01-01 00:00:00Z":                "",
		"2099-01-01T00:00:00UTC":              "",
		"2099-12-31T23:59:60Z":                "",
		"2099-12-31T24:00:00Z":                "",
		"2099-12-31T23:60:00Z":                "",
		"2099-02-29T00:00:00Z":                "",
		"2099-02-30T00:00:00Z":                "",
		"2099-13-01T00:00:00Z":                "",
		"2099-00-01T00:00:00Z":                "",
		"2099-01-00T00:00:00Z":                "",
		"2099-01-32T00:00:00Z":                "",
		"2099-01-01T00:00:00.Z":               "",
		"2099-01-01T00:00:00.1234567890Z":     "",
		"2099-01-01T00:00:00,5Z":              "",
		"2099-01-01T1:02:03Z":                 "",
		"2099-1-1T00:00:00Z":                  "",
		"12099-01-01T00:00:00Z":               "",
		"+2099-01-01T00:00:00Z":               "",
		"-2099-01-01T00:00:00Z":               "",
		" 2099-01-01T00:00:00Z":               "",
		"2099-01-01T00:00:00Z ":               "",
		"2099-01-01T00:00:00Z\n":              "",
		"2099-01-01T00:00:00Z\x00":            "",
		"２099-01-01T00:00:00Z":                "", // a full-width digit
		"2099-01-01T00:00:00Z[Europe/Berlin]": "",
		"Thu, 01 Jan 2099 00:00:00 GMT":       "",
		"2099-W01-1":                          "",
		"P30D":                                "",
		"30d":                                 "",
		"4070908800":                          "",
		"never":                               "",
		"2020-01-01T00:00:00Z":                "",
		"0000-01-01T00:00:00Z":                "",
		"0001-01-01T00:00:00Z":                "", // Go's zero time
		"0001-01-01T00:00:00.0001Z":           "",
		"0001-01-01T01:00:00+01:00":           "",
		"1970-01-01T00:00:00Z":                "", // the zero of Unix time
		"1970-01-01T00:00:00.0009Z":           "",
		"1969-12-31T23:00:00-01:00":           "",
		"1969-12-31T23:59:59.9999Z":           "",
	} {
		t.Run(text, func(t *testing.T) {
			quoted, _ := json.Marshal(text)
			a := newService(t).call(t, alice, "POST", "", `{"name":"x","expiresAt":`+string(quoted)+`}`)
			switch {
			case want == "":
				if a.status != 400 || a.reason() != "invalid_field" || a.field() != "expiresAt" || !strings.Contains(a.message, "future") {
					t.Errorf("%d %s %q: %s", a.status, a.reason(), a.field(), a.message)
				}
			case a.status != 200 || a.data["expiresAt"] != want:
				t.Errorf("%d %s: expiresAt %v, want %s", a.status, a.message, a.data["expiresAt"], want)
			}
		})
	}
}
