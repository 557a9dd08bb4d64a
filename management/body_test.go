package management_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestFieldsThatCannotBeAcceptedAreNamed(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, test := range map[string]struct{ body, reason, field, says string }{
		"empty":            {``, "invalid_body", "", "JSON object"},
		"white space":      {" \n", "invalid_body", "", "JSON object"},
		"null":             {`null`, "invalid_body", "", "JSON object"},
		"array":            {`[]`, "invalid_body", "", "JSON object"},
		"string":           {`"x"`, "invalid_body", "", "JSON object"},
		"number":           {`1`, "invalid_body", "", "JSON object"},
		"true":             {`true`, "invalid_body", "", "JSON object"},
		"byte order mark":  {"\ufeff" + `{"name":"x"}`, "invalid_body", "", "JSON object"},
		"object in array":  {`[{"name":"x"}]`, "invalid_body", "", "JSON object"},
		"UTF-16":           {"{\x00\"\x00}\x00", "invalid_body", "", "byte 1"},
		"cut in the name":  {`{"na`, "invalid_body", "", "byte"},
		"cut at the value": {`{"name":`, "invalid_body", "name", "name"},
		"cut in the value": {`{"name":"x`, "invalid_body", "name", "name"},
		"cut at the end":   {`{"name":"x"`, "invalid_body", "", "byte"},

		"no field":          {`{}`, "missing_field", "name", "name is required"},
		"only others":       {`{"scope":"read"}`, "missing_field", "name", "name is required"},
		"null is absent":    {`{"name":null}`, "missing_field", "name", "name is required"},
		"empty name":        {`{"name":""}`, "invalid_field", "name", "name must not be empty"},
		"empty scope":       {`{"name":"x","scope":""}`, "invalid_field", "scope", "scope must not be empty"},
		"empty expiresAt":   {`{"name":"x","expiresAt":""}`, "invalid_field", "expiresAt", "expiresAt must not be empty"},
		"empty account":     {`{"name":"x","serviceAccountId":""}`, "invalid_field", "serviceAccountId", "serviceAccountId must not be empty"},
		"name is a number":  {`{"name":1}`, "invalid_field", "name", "name must be a JSON string"},
		"name is true":      {`{"name":true}`, "invalid_field", "name", "name must be a JSON string"},
		"name is an object": {`{"name":{"a":1,"a":2}}`, "invalid_field", "name", "name must be a JSON string"},
		"scope is a list":   {`{"name":"x","scope":["read"]}`, "invalid_field", "scope", "scope must be a JSON string"},
		"time is a number":  {`{"name":"x","expiresAt":4102444800}`, "invalid_field", "expiresAt", "expiresAt must be a JSON string"},

		"scope in capitals":    {`{"name":"x","scope":"READ"}`, "invalid_field", "scope", "read-write"},
		"scope with a space":   {`{"name":"x","scope":"read "}`, "invalid_field", "scope", "read-write"},
		"two scopes":           {`{"name":"x","scope":"read,read-write"}`, "invalid_field", "scope", "read-write"},
		"scope admin":          {`{"name":"x","scope":"admin"}`, "invalid_field", "scope", "read-write"},
		"account with a space": {`{"name":"x","serviceAccountId":"a b"}`, "invalid_field", "serviceAccountId", "serviceAccountId"},
		"blank name":           {`{"name":" \t"}`, "invalid_field", "name", "name"},
		"NUL in the name":      {`{"name":"a\u0000b"}`, "invalid_field", "name", "name"},

		"snake case":           {`{"name":"x","expires_at":"2099-01-01T00:00:00Z"}`, "unknown_field", "expires_at", `"expires_at"`},
		"lower case":           {`{"name":"x","expiresat":"2099-01-01T00:00:00Z"}`, "unknown_field", "expiresat", "expiresAt"},
		"capital":              {`{"Name":"x"}`, "unknown_field", "Name", `"Name"`},
		"capitals":             {`{"NAME":"x"}`, "unknown_field", "NAME", `"NAME"`},
		"a digit":              {`{"name":"x","expires2":"y"}`, "unknown_field", "expires2", `"expires2"`},
		"a token":              {`{"name":"x","8f1c2b7d9e0a4c55b3d2":"y"}`, "unknown_field", "", "the fields are"},
		"space after":          {`{"name ":"x"}`, "unknown_field", "", "the fields are name, description, expiresAt, scope, serviceAccountId"},
		"long s":               {`{"name":"x","ſcope":"read-write"}`, "unknown_field", "", "the fields are"},
		"Kelvin sign":          {`{"name":"x","\u212Aey":"y"}`, "unknown_field", "", "the fields are"},
		"empty field name":     {`{"":"x"}`, "unknown_field", "", "the fields are"},
		"id":                   {`{"name":"x","id":"key_1"}`, "unknown_field", "id", `"id"`},
		"key":                  {`{"name":"x","key":"mine"}`, "unknown_field", "key", `"key"`},
		"organization":         {`{"name":"x","organizationId":"globex"}`, "unknown_field", "organizationId", `"organizationId"`},
		"userId of a user":     {`{"name":"x","userId":"bob"}`, "unknown_field", "userId", `"userId"`},
		"null unknown":         {`{"name":"x","admin":null}`, "unknown_field", "admin", `"admin"`},
		"prototype":            {`{"name":"x","__proto__":{}}`, "unknown_field", "__proto__", `"__proto__"`},
		"escaped known name":   {`{"name":"x","n\u0061me":"y"}`, "duplicate_field", "name", "name is given twice"},
		"duplicate":            {`{"name":"x","name":"x"}`, "duplicate_field", "name", "name is given twice"},
		"duplicate after null": {`{"name":null,"name":"x"}`, "duplicate_field", "name", "name is given twice"},
		"duplicate scope":      {`{"scope":"read","name":"x","scope":"read-write"}`, "duplicate_field", "scope", "scope is given twice"},

		"invalid UTF-8":          {"{\"name\":\"\xff\"}", "invalid_body", "name", "UTF-8"},
		"overlong UTF-8":         {"{\"name\":\"\xc0\xaf\"}", "invalid_body", "name", "UTF-8"},
		"CESU-8":                 {"{\"name\":\"\xed\xa0\xbd\xed\xb8\x80\"}", "invalid_body", "name", "UTF-8"},
		"invalid UTF-8 in field": {"{\"na\xffme\":\"x\"}", "invalid_body", "", "UTF-8"},
		"lone surrogate":         {`{"name":"\ud800"}`, "invalid_body", "name", "name"},
		"reversed surrogates":    {`{"name":"\ude00\ud83d"}`, "invalid_body", "name", "name"},
		"raw control character":  {"{\"name\":\"a\nb\"}", "invalid_body", "name", "name"},
		"unknown escape":         {`{"name":"\x41"}`, "invalid_body", "name", "name"},

		"two objects":          {`{"name":"x"}{}`, "invalid_body", "", "must end"},
		"word after":           {`{"name":"x"} x`, "invalid_body", "", "must end"},
		"brace after":          {`{"name":"x"}}`, "invalid_body", "", "must end"},
		"NUL after":            {"{\"name\":\"x\"}\x00", "invalid_body", "", "must end"},
		"comma after":          {`{"name":"x"},`, "invalid_body", "", "must end"},
		"comma before brace":   {`{"name":"x",}`, "invalid_body", "", "byte"},
		"comma alone":          {`{,}`, "invalid_body", "", "byte"},
		"no comma":             {`{"name":"x" "scope":"read"}`, "invalid_body", "", "byte"},
		"no colon":             {`{"name" "x"}`, "invalid_body", "name", "name"},
		"comment":              {`{/* */"name":"x"}`, "invalid_body", "", "byte"},
		"line comment":         {"{\"name\":\"x\"} // y", "invalid_body", "", "must end"},
		"single quotes":        {`{'name':'x'}`, "invalid_body", "", "byte"},
		"bare field name":      {`{name:"x"}`, "invalid_body", "", "byte"},
		"number as field name": {`{1:"x"}`, "invalid_body", "", "byte"},
		"misspelt null":        {`{"name":nul}`, "invalid_body", "name", "name"},
		"NaN":                  {`{"name":NaN}`, "invalid_body", "name", "name"},
		"100 deep":             {`{"name":` + deep(100) + `}`, "invalid_field", "name", "name must be"},
		"8,000 deep":           {`{"name":` + deep(8000) + `}`, "invalid_field", "name", "name must be"},
		"deep in unknown":      {`{"x":` + deep(8000) + `}`, "unknown_field", "x", `"x"`},
		"deep and never ended": {`{"name":` + strings.Repeat("[", 16000), "invalid_field", "name", "name must be"},
		"objects all the way":  {strings.Repeat(`{"name":`, 2000), "invalid_field", "name", "name must be"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newService(t).call(t, alice, "POST", "", test.body)
			if a.status != 400 || a.reason() != test.reason || a.field() != test.field || !strings.Contains(a.message, test.says) {
				t.Errorf("%d %s %q: %s", a.status, a.reason(), a.field(), a.message)
			}
		})
	}
}

func TestNoMessageRepeatsWhatMayBeAToken(t *testing.T) {
	s := newService(t)
	token := s.mustCreate(t, alice, `{"name":"first"}`)["key"].(string)
	half := token[30:70]
	for name, body := range map[string]string{
		"as a field":             fmt.Sprintf(`{%q:"x"}`, token),
		"half as a field":        fmt.Sprintf(`{%q:"x"}`, half),
		"as the name":            fmt.Sprintf(`{"name":%q}`, token),
		"as the description":     fmt.Sprintf(`{"name":"x","description":%q}`, "see "+token),
		"as the scope":           fmt.Sprintf(`{"name":"x","scope":%q}`, token),
		"as expiresAt":           fmt.Sprintf(`{"name":"x","expiresAt":%q}`, token),
		"as the service account": fmt.Sprintf(`{"name":"x","serviceAccountId":%q}`, token+" "),
		"as a broken string":     fmt.Sprintf(`{"name":"%s\x"}`, token),
		"after the object":       `{"name":"x"}` + token,
		"alone":                  token,
	} {
		t.Run(name, func(t *testing.T) {
			a := s.call(t, alice, "POST", "", body)
			if a.status != 400 || strings.Contains(a.bytes, half[:12]) {
				t.Errorf("%d %s", a.status, a.bytes)
			}
		})
	}
	for _, rest := range []string{"/" + token, "?cursor=" + token, "?limit=" + token, "?" + token + "=x", "?x=%zz" + token} {
		if a := s.call(t, alice, "GET", rest, ""); a.status < 400 || strings.Contains(a.bytes, half[:12]) {
			t.Errorf("%s: %d %s", rest, a.status, a.bytes)
		}
	}
}
