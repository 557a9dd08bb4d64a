package openapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestTheGatewayServesTheDocument(t *testing.T) {
	g := startGateway(t)
	status, served, header := judged{read(t), t}.send(t.Context(), "GET", g.url+"/v1/api-keys/openapi.yaml", "", "")
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if status != 200 || string(served) != string(want) {
		t.Errorf("it is served as HTTP %d %.200s", status, served)
	}
	if status, _, _ := (judged{read(t), t}).send(t.Context(), "GET", g.url+"/v1/api-keys/openapi.yaml", "", "", "If-None-Match", header.Get("ETag")); status != 304 {
		t.Errorf("again: HTTP %d", status)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(served, &tree); err != nil {
		t.Error(err)
	}
}

// The gateway names the methods, fields and parameters that it knows when it is
// given others.
func TestTheDocumentHasEveryMethodFieldAndParameterAndNoOther(t *testing.T) {
	g := startGateway(t)
	d := read(t)
	token := g.issue("alice", "read-write")
	j := judged{d, t}
	for path, item := range d.Paths.Map() {
		at := g.url + strings.ReplaceAll(path, "{id}", "key_02FtRNQMaa5WBSQ3BBKjYR")
		methods := slices.Sorted(maps.Keys(item.Operations()))
		if slices.Contains(methods, http.MethodGet) {
			methods = append(methods, http.MethodHead)
		}
		slices.Sort(methods)
		status, _, header := j.send(t.Context(), "PROPFIND", at, token, "")
		if allow := header.Get("Allow"); status != 405 || allow != strings.Join(methods, ", ") {
			t.Errorf("%s: HTTP %d, the gateway allows %s, documented is %s", path, status, allow, strings.Join(methods, ", "))
		}
		for method, operation := range item.Operations() {
			if operation.RequestBody == nil {
				continue
			}
			schema := operation.RequestBody.Value.Content["application/json"].Schema.Value
			documented := slices.Sorted(maps.Keys(schema.Properties))
			_, answer, _ := j.send(t.Context(), method, at, token, `{"unheard":"of"}`)
			if known := named(t, answer, "the fields are "); !slices.Equal(known, documented) {
				t.Errorf("%s %s: the gateway takes the fields %q, documented are %q", method, path, known, documented)
			}
			_, answer, _ = j.send(t.Context(), method, at, token, `{}`)
			var refused struct {
				Data struct{ Reason, Field string }
			}
			json.Unmarshal(answer, &refused)
			if needs := refused.Data.Reason == "missing_field"; needs != (len(schema.Required) > 0) || needs && !slices.Contains(schema.Required, refused.Data.Field) {
				t.Errorf("%s %s: the gateway needs %q, documented is %q", method, path, refused.Data.Field, schema.Required)
			}
		}
	}
	var documented []string
	for _, p := range d.Paths.Value("/v1/api-keys").Get.Parameters {
		documented = append(documented, p.Value.Name)
	}
	_, answer, _ := j.send(t.Context(), "GET", g.url+"/v1/api-keys?unheard=of", token, "")
	slices.Sort(documented)
	if known := named(t, answer, "the parameters are "); !slices.Equal(known, documented) {
		t.Errorf("the gateway takes the parameters %q, documented are %q", known, documented)
	}
}

// named returns the list at the end of a message.
func named(t *testing.T, answer []byte, after string) []string {
	t.Helper()
	var said struct{ Message string }
	json.Unmarshal(answer, &said)
	_, list, found := strings.Cut(said.Message, after)
	if !found {
		t.Errorf("the gateway does not say what it knows: %s", answer)
	}
	return slices.Sorted(slices.Values(strings.Split(list, ", ")))
}

func TestTheDocumentAndTheGatewayDrawTheSameLine(t *testing.T) {
	g := startGateway(t)
	d := read(t)
	token := g.issue("alice", "read-write")
	list := func(query string) exchange { return request("GET", "/v1/api-keys?"+query, "") }
	create := func(format string, args ...any) exchange {
		return request("POST", "/v1/api-keys", fmt.Sprintf(format, args...))
	}
	called := func(name string) exchange {
		e := create(`{"name":"x"}`)
		e.Request.Header.Set("Idempotency-Key", name)
		return e
	}
	long := func(n int) string { return strings.Repeat("é", n) }
	for name, c := range map[string]struct {
		e    exchange
		good bool
	}{
		"name of 128 characters":          {create(`{"name":%q}`, long(128)), true},
		"name of 129 characters":          {create(`{"name":%q}`, long(129)), false},
		"empty name":                      {create(`{"name":""}`), false},
		"no name":                         {create(`{}`), false},
		"name that is null":               {create(`{"name":null}`), false},
		"all else null":                   {create(`{"name":"x","description":null,"scope":null,"expiresAt":null,"serviceAccountId":null}`), true},
		"empty description":               {create(`{"name":"x","description":""}`), true},
		"description of 1,024 characters": {create(`{"name":"x","description":%q}`, long(1024)), true},
		"description of 1,025 characters": {create(`{"name":"x","description":%q}`, long(1025)), false},
		"scope":                           {create(`{"name":"x","scope":"read-write"}`), true},
		"another scope":                   {create(`{"name":"x","scope":"write"}`), false},
		"end":                             {create(`{"name":"x","expiresAt":"2099-01-31T12:00:00.123456789+23:59"}`), true},
		"end in small letters":            {create(`{"name":"x","expiresAt":"2099-01-31t12:00:00z"}`), false},
		"end on no day":                   {create(`{"name":"x","expiresAt":"2099-01-32T12:00:00Z"}`), false},
		"end without a zone":              {create(`{"name":"x","expiresAt":"2099-01-31T12:00:00"}`), false},
		"account of 128 characters":       {create(`{"name":"x","serviceAccountId":%q}`, strings.Repeat("~", 128)), true},
		"account of 129 characters":       {create(`{"name":"x","serviceAccountId":%q}`, strings.Repeat("~", 129)), false},
		"account with a space":            {create(`{"name":"x","serviceAccountId":"a b"}`), false},
		"idempotency key of 255":          {called(strings.Repeat("k", 255)), true},
		"idempotency key of 256":          {called(strings.Repeat("k", 256)), false},
		"idempotency key with a space":    {called("a b"), false},
		"limit 0":                         {list("limit=0"), false},
		"limit 1":                         {list("limit=1"), true},
		"limit 100":                       {list("limit=100"), true},
		"limit 101":                       {list("limit=101"), false},
		"limit that is no number":         {list("limit=x"), false},
		"status":                          {list("status=active"), true},
		"another status":                  {list("status=dead"), false},
		"scope of a list":                 {list("scope=read"), true},
		"another scope of a list":         {list("scope=all"), false},
		"unused since":                    {list("unusedSince=2026-01-31T12:00:00Z"), true},
		"unused since a day":              {list("unusedSince=2026-01-31"), false},
		"no user":                         {list("userId="), false},
		"no cursor":                       {list("cursor=x"), false},
		"a parameter twice":               {list("limit=1&limit=2"), false},
		"an unknown parameter":            {list("limit=1&offset=2"), false},
		"revoke nothing":                  {request("POST", "/v1/api-keys/revoke", `{}`), false},
		"revoke of nobody":                {request("POST", "/v1/api-keys/revoke", `{"userId":""}`), false},
		"revoke by no id":                 {request("POST", "/v1/api-keys/revoke", `{"mintedBy":"key_1"}`), false},
		"revoke":                          {request("POST", "/v1/api-keys/revoke", `{"userId":"bob","serviceAccountId":null}`), true},
		"verify nothing":                  {request("POST", "/v1/api-keys/verify", `{"key":""}`), false},
	} {
		t.Run(name, func(t *testing.T) { requireSame(t, d, g, token, c.e, c.good) })
	}
	for grace, good := range map[string]bool{
		"0": true, "0s": true, "24h": true, "7d": true, "1h30m": true, "1.5h": true, "250ms": true,
		"": false, "-1h": false, "d": false, "1.5d": false, "1": false, "1d12h": false, "P1D": false, " 1h": false, "1w": false,
	} {
		t.Run("grace "+grace, func(t *testing.T) {
			_, answer, _ := judged{d, t}.send(t.Context(), "POST", g.url+"/v1/api-keys", token, `{"name":"x"}`)
			var made struct{ Data struct{ ID string } }
			json.Unmarshal(answer, &made)
			requireSame(t, d, g, token, request("POST", "/v1/api-keys/"+made.Data.ID+"/rotate", fmt.Sprintf(`{"gracePeriod":%q}`, grace)), good)
		})
	}
}

func request(method, url, body string) (e exchange) {
	e.Request.Method, e.Request.URL, e.Request.Body = method, url, []byte(body)
	e.Request.Header = http.Header{"Content-Type": {"application/json"}}
	return e
}

func requireSame(t *testing.T, d *document, g *gateway, token string, e exchange, good bool) {
	t.Helper()
	in, err := d.find(&e)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.checkRequest(in); (err == nil) != good {
		t.Errorf("good is %t, and the document says: %v", good, err)
	}
	var headers []string
	for name := range e.Request.Header {
		headers = append(headers, name, e.Request.Header.Get(name))
	}
	if status, answer, _ := (judged{d, t}).send(t.Context(), e.Request.Method, g.url+e.Request.URL, token, string(e.Request.Body), headers...); (status == 200) != good {
		t.Errorf("good is %t, and the gateway says: HTTP %d %s", good, status, answer)
	}
}
