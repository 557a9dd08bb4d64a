package management_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func getDocument(t *testing.T, path, method string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	management.NewDocument(path).Serve(w, r, "req-1")
	return w
}

func TestTheDocumentIsTheFileUnderThePathOfTheAPI(t *testing.T) {
	file, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, written := range map[string]string{
		"/v1/api-keys": "/v1/api-keys",
		"/keys":        "/keys",
		"/a\": {b} #":  "/a%22:%20%7Bb%7D%20%23",
	} {
		got := getDocument(t, path, "GET")
		want := bytes.ReplaceAll(file, []byte("/v1/api-keys"), []byte(written))
		if got.Code != 200 || !bytes.Equal(got.Body.Bytes(), want) {
			t.Errorf("%s: %d, not the file under this path", path, got.Code)
		}
		if !bytes.Contains(got.Body.Bytes(), []byte(`  "`+written+`/{id}":`)) {
			t.Errorf("%s: the paths are not %s", path, written)
		}
	}
}

func TestTheDocumentIsFetchedOnceUntilItChanges(t *testing.T) {
	first := getDocument(t, mount, "GET")
	etag := first.Header().Get("ETag")
	if first.Code != 200 || first.Header().Get("Content-Type") != "application/yaml" || first.Header().Get("Cache-Control") != "no-cache" || etag == "" {
		t.Errorf("%d %v", first.Code, first.Header())
	}
	again := getDocument(t, mount, "GET", "If-None-Match: "+etag)
	if again.Code != 304 || again.Body.Len() != 0 || again.Header().Get("ETag") != etag {
		t.Errorf("again: %d %v", again.Code, again.Header())
	}
	if moved := getDocument(t, "/keys", "GET", "If-None-Match: "+etag); moved.Code != 200 {
		t.Errorf("under another path: %d", moved.Code)
	}
	for _, condition := range []string{"Range: bytes=0-3", "Range: bytes=9999999-", `If-Match: "x"`, "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"} {
		if whole := getDocument(t, mount, "GET", condition); whole.Code != 200 || whole.Body.Len() != first.Body.Len() {
			t.Errorf("%s: %d", condition, whole.Code)
		}
	}
	head := getDocument(t, mount, "HEAD")
	if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != strconv.Itoa(first.Body.Len()) {
		t.Errorf("HEAD: %d %v", head.Code, head.Header())
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		w := getDocument(t, mount, method)
		a := checkAnswer(t, method, w.Code, w.Header(), w.Body.Bytes())
		if a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d %v", method, a.status, a.header)
		}
	}
}

// The shape of the file is looked at as text here; whether it is OpenAPI is seen to
// in tools/openapi.
var (
	documentedPath   = regexp.MustCompile(`(?m)^  "/v1/api-keys([^"]*)":$`)
	documentedMethod = regexp.MustCompile(`(?m)^    (get|post|patch|put|delete):$`)
	documentedReason = regexp.MustCompile(`(?m)^        - ([a-z_]+)$`)
)

func TestTheDocumentHasEveryCallAndNoOther(t *testing.T) {
	text := getDocument(t, mount, "GET").Body.String()
	text, _, _ = strings.Cut(text, "\ncomponents:\n")
	documented := make(map[string][]string)
	places := append(documentedPath.FindAllStringSubmatchIndex(text, -1), []int{len(text)})
	for i, at := range places[:len(places)-1] {
		path := text[at[2]:at[3]]
		for _, match := range documentedMethod.FindAllStringSubmatch(text[at[1]:places[i+1][0]], -1) {
			documented[path] = append(documented[path], strings.ToUpper(match[1]))
		}
	}
	if !slices.Equal(documented[management.DocumentPath], []string{http.MethodGet}) {
		t.Errorf("%s: %q", management.DocumentPath, documented[management.DocumentPath])
	}
	delete(documented, management.DocumentPath)
	routes := management.Routes()
	for path, at := range routes {
		for method := range at {
			if !slices.Contains(documented[path], method) {
				t.Errorf("%s %s is not documented", method, path)
			}
		}
	}
	for path, methods := range documented {
		for _, method := range methods {
			if _, ok := routes[path][method]; !ok {
				t.Errorf("%s %s is documented and does not exist", method, path)
			}
		}
	}
}

func TestTheDocumentHasEveryReasonAndNoOther(t *testing.T) {
	text := getDocument(t, mount, "GET").Body.String()
	_, list, found := strings.Cut(text, "\n    Reason:\n")
	if !found {
		t.Fatal("there is no schema Reason")
	}
	var documented []string
	for _, match := range documentedReason.FindAllStringSubmatch(list, -1) {
		documented = append(documented, match[1])
		if explained, _, _ := strings.Cut(list, "\n      enum:"); !strings.Contains(explained, "`"+match[1]+"`") {
			t.Errorf("%s is not explained", match[1])
		}
	}
	// Of import, backup and reports of leaks, which are not for key holders.
	operators := []string{string(management.ReasonDuplicate), string(management.ReasonNotSupported), string(management.ReasonInvalidSignature)}
	for _, reason := range reasons(t) {
		if !slices.Contains(operators, reason) && !slices.Contains(documented, reason) {
			t.Errorf("%s is not documented", reason)
		}
	}
	for _, reason := range documented {
		if !slices.Contains(reasons(t), reason) {
			t.Errorf("%s is documented and does not exist", reason)
		}
	}
}

// reasons returns every constant of type Reason.
func reasons(t *testing.T) (found []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), "refusals.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Reason" {
				text, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				found = append(found, text)
			}
		}
		return true
	})
	if len(found) < 20 {
		t.Fatalf("found %q only", found)
	}
	return found
}
