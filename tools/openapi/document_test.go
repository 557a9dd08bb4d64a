package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"go.yaml.in/yaml/v3"
)

const file = "../../management/openapi.yaml"

// document is openapi.yaml, ready to judge requests and answers.
type document struct {
	*openapi3.T
	router routers.Router
}

// read returns the document. It is stricter than the file in one thing: the file
// lets answers have more fields, so that clients put up with new ones, and here a
// field that is not documented is an error.
func read(t *testing.T) *document {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	closeObjects(tree["components"].(map[string]any)["schemas"])
	closed, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(closed)
	if err != nil {
		t.Fatal(err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &document{doc, router}
}

// closeObjects lets every schema of an object have the documented fields only.
func closeObjects(node any) {
	schema, ok := node.(map[string]any)
	if !ok {
		return
	}
	if _, said := schema["additionalProperties"]; !said && schema["type"] == "object" {
		schema["additionalProperties"] = false
	}
	for _, below := range schema {
		closeObjects(below)
	}
}

// exchange is a request and its answer, as management/traffic writes them down.
type exchange struct {
	Test    string
	Request struct {
		Method, URL string
		Header      http.Header
		Body        []byte
	}
	Answer struct {
		Status int
		Header http.Header
		Body   []byte
	}
}

func (e *exchange) String() string {
	return fmt.Sprintf("%s: %s %s %.200s: HTTP %d: %.300s", e.Test, e.Request.Method, e.Request.URL, e.Request.Body, e.Answer.Status, e.Answer.Body)
}

// check says in what an exchange is not as documented. What the gateway accepts
// must be a documented request; and every answer, a refusal too, a documented one.
func (d *document) check(e *exchange) error {
	in, err := d.find(e)
	if err != nil {
		return d.checkElsewhere(e, err)
	}
	if e.Answer.Status < 300 {
		if err := d.checkRequest(in); err != nil {
			return fmt.Errorf("a request that is not as documented was accepted: %w", err)
		}
	}
	err = openapi3filter.ValidateResponse(in.Request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: e.Answer.Status, Header: e.Answer.Header, Body: io.NopCloser(bytes.NewReader(e.Answer.Body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: e.Request.Method == http.MethodHead},
	})
	if err != nil {
		return fmt.Errorf("the answer is not as documented: %w", err)
	}
	return nil
}

// find returns what the document says of a request.
func (d *document) find(e *exchange) (*openapi3filter.RequestValidationInput, error) {
	method := e.Request.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	r, err := http.NewRequest(method, e.Request.URL, bytes.NewReader(e.Request.Body))
	if err != nil {
		return nil, err
	}
	r.Header = e.Request.Header
	route, params, err := d.router.FindRoute(r)
	if err != nil {
		return nil, err
	}
	return &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, SkipSettingDefaults: true},
	}, nil
}

// checkRequest is stricter than OpenAPI, which allows any query parameter, and as
// strict as the gateway.
func (d *document) checkRequest(in *openapi3filter.RequestValidationInput) error {
	if in.Route.Operation.OperationID == "listKeys" {
		for name, values := range in.Request.URL.Query() {
			if in.Route.Operation.Parameters.GetByInAndName("query", name) == nil || len(values) > 1 {
				return fmt.Errorf("the query parameter %s", name)
			}
		}
	}
	return openapi3filter.ValidateRequest(in.Request.Context(), in)
}

// checkElsewhere checks the answer to a method or a path that the document does
// not have.
func (d *document) checkElsewhere(e *exchange, why error) error {
	switch {
	case e.Answer.Status < 400:
		return fmt.Errorf("what is not documented was accepted: %w", why)
	case e.Request.Method == http.MethodHead:
		return nil
	}
	var body any
	if err := json.Unmarshal(e.Answer.Body, &body); err != nil {
		return err
	}
	return valid(d.Components.Schemas["Refusal"], body)
}

func valid(schema *openapi3.SchemaRef, value any) error {
	return schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020())
}

func TestTheDocumentIsOpenAPI31AndItsExamplesAreValid(t *testing.T) {
	d := read(t)
	if d.OpenAPI != "3.1.0" {
		t.Errorf("openapi: %s", d.OpenAPI)
	}
	if err := d.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	examples := 0
	for path, item := range d.Paths.Map() {
		for method, operation := range item.Operations() {
			contents := map[string]openapi3.Content{}
			if operation.RequestBody != nil {
				contents["request"] = operation.RequestBody.Value.Content
			}
			for status, response := range operation.Responses.Map() {
				contents[status] = response.Value.Content
			}
			for where, content := range contents {
				for _, media := range content {
					for name, example := range media.Examples {
						examples++
						if err := valid(media.Schema, example.Value.Value); err != nil {
							t.Errorf("%s %s, %s, example %s: %v", method, path, where, name, err)
						}
					}
				}
			}
		}
	}
	for name, schema := range d.Components.Schemas {
		for _, example := range schema.Value.Examples {
			examples++
			if err := valid(schema, example); err != nil {
				t.Errorf("schema %s, example %v: %v", name, example, err)
			}
		}
	}
	if examples < 20 {
		t.Errorf("found %d examples", examples)
	}
}

// The judge must be able to say no.
func TestWhatIsNotAsDocumentedIsFound(t *testing.T) {
	d := read(t)
	header := func() http.Header {
		return http.Header{
			"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "Vary": {"Authorization"}, "X-Content-Type-Options": {"nosniff"},
		}
	}
	const key = `{"createdAt":"2026-11-23T08:30:00.125Z","createdBy":"alice","id":"key_02FtRNQMaa5WBSQ3BBKjYR","name":"x","organizationId":"acme","scope":"read","userId":"alice"}`
	const envelope = `{"code":200,"data":` + key + `,"message":"success","requestId":"1"}`
	for name, c := range map[string]struct {
		change func(*exchange)
		found  string // nothing is
	}{
		"as documented":      {func(*exchange) {}, ""},
		"an unknown field":   {func(e *exchange) { e.Request.Body = []byte(`{"expires_at":"x"}`) }, "accepted"},
		"another type":       {func(e *exchange) { e.Request.Body = []byte(`{"name":7}`) }, "accepted"},
		"too long a name":    {func(e *exchange) { e.Request.Body = fmt.Appendf(nil, `{"name":%q}`, strings.Repeat("x", 129)) }, "accepted"},
		"an unknown method":  {func(e *exchange) { e.Request.Method = "PUT" }, "not documented"},
		"an unknown path":    {func(e *exchange) { e.Request.URL += "/more" }, "not documented"},
		"an unknown status":  {func(e *exchange) { e.Answer.Status = 201 }, "status"},
		"a header less":      {func(e *exchange) { e.Answer.Header.Del("Cache-Control") }, "Cache-Control"},
		"another header":     {func(e *exchange) { e.Answer.Header.Set("Cache-Control", "public") }, "Cache-Control"},
		"a field less":       {replace(`"name":"x",`, ``), "name"},
		"a field more":       {replace(`"name"`, `"digest":"x","name"`), "digest"},
		"the token again":    {replace(`"name"`, `"key":"ak_02FtRNQMaa5WBSQ3BBKjYR0000000000000000000000000000000000000000000000000","name"`), "not"},
		"null":               {replace(`"alice","id"`, `null,"id"`), "createdBy"},
		"a time in seconds":  {replace(`"2026-11-23T08:30:00.125Z"`, `"2026-11-23 08:30:00"`), "createdAt"},
		"another code":       {replace(`"code":200`, `"code":201`), "code"},
		"an envelope more":   {replace(`"code"`, `"more":1,"code"`), "more"},
		"a reason elsewhere": {refuse(404, "missing_field"), "reason"},
		"an unknown reason":  {refuse(404, "gone"), "reason"},
		"a documented one":   {refuse(404, "not_found"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var e exchange
			e.Request.Method, e.Request.URL, e.Request.Body = "PATCH", "/v1/api-keys/key_02FtRNQMaa5WBSQ3BBKjYR", []byte(`{"name":"x"}`)
			e.Request.Header = http.Header{"Content-Type": {"application/json"}}
			e.Answer.Status, e.Answer.Header, e.Answer.Body = 200, header(), []byte(envelope)
			c.change(&e)
			err := d.check(&e)
			if (err == nil) != (c.found == "") || err != nil && !strings.Contains(err.Error(), c.found) {
				t.Errorf("found: %v", err)
			}
		})
	}
}

func replace(old, new string) func(*exchange) {
	return func(e *exchange) { e.Answer.Body = bytes.Replace(e.Answer.Body, []byte(old), []byte(new), 1) }
}

func refuse(status int, reason string) func(*exchange) {
	return func(e *exchange) {
		e.Answer.Status = status
		e.Answer.Body = fmt.Appendf(nil, `{"code":%d,"data":{"reason":%q},"message":"no","requestId":"1"}`, status, reason)
	}
}

func TestTheClientIsWhatTheDocumentMakesNow(t *testing.T) {
	want, err := os.ReadFile("client/client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "tool", "oapi-codegen", "-config", "config.yaml", "../"+file)
	cmd.Dir, cmd.Stderr = "client", os.Stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("client.gen.go is not what oapi-codegen makes: run go generate ./... in tools/openapi")
	}
}
