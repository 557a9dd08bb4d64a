package openapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// endToEnd are the tests whose traffic is looked at: those of the API in a real
// Caddy and of the built binary, and, for the refusals that are hard to come by,
// those without a mount in front. Left out are tests that wait long and call
// nothing of this.
var endToEnd = [][]string{
	{"./caddymodule", "./management", "-skip", "^(TestLongRequests|TestReloads|TestFailedReloads|Fuzz)"},
	{"./cmd/caddy", "-run", "^Test(TheContract|AChangeOfAKey|ARotatedKey|VerifyAndSelf|AListIs|ARepeatedCall|AllKeysOf|AnOrganization|EveryChange)"},
}

func TestEveryExchangeOfTheEndToEndTestsIsAsDocumented(t *testing.T) {
	d := read(t)
	seen := make(map[string]bool)
	for _, e := range record(t) {
		if kind := e.Answer.Header.Get("Content-Type"); kind != "application/json" && kind != "application/yaml" {
			continue // of an API behind the gateway
		}
		if strings.Contains(e.Request.URL, "/leaks/github") {
			continue // has the shape that GitHub documents, and a path of its own
		}
		if e.Request.Method == http.MethodGet && reasonOr(&e, "") == "outcome_unknown" {
			continue // of a faulty store that only a test has: nothing to read changes anything
		}
		if err := d.check(&e); err != nil {
			t.Errorf("%v\n%v", &e, err)
		}
		if in, err := d.find(&e); err == nil {
			seen[in.Route.Operation.OperationID+" "+reasonOr(&e, "success")] = true
		}
	}
	for _, item := range d.Paths.Map() {
		for _, operation := range item.Operations() {
			if !seen[operation.OperationID+" success"] {
				t.Errorf("no test calls %s with success", operation.OperationID)
			}
		}
	}
	for _, reason := range d.Components.Schemas["Reason"].Value.Enum {
		found := reason == "method_not_allowed" // no documented method is
		for what := range seen {
			found = found || strings.HasSuffix(what, " "+reason.(string))
		}
		if !found {
			t.Errorf("no test meets the reason %s", reason)
		}
	}
	t.Logf("%d kinds of answers to documented calls", len(seen))
}

func reasonOr(e *exchange, success string) string {
	var answer struct{ Data struct{ Reason string } }
	json.Unmarshal(e.Answer.Body, &answer)
	if e.Answer.Status < 300 {
		return success
	}
	return answer.Data.Reason
}

// record runs the tests and returns what they sent and got.
func record(t *testing.T) (exchanges []exchange) {
	t.Helper()
	dir := t.TempDir()
	for _, args := range endToEnd {
		cmd := exec.Command("go", append([]string{"test", "-count=1"}, args...)...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "API_KEYS_TRAFFIC="+dir)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("the tests have written %q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before := len(exchanges)
		for line := range bytes.Lines(text) {
			var e exchange
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			exchanges = append(exchanges, e)
		}
		t.Logf("%s: %d exchanges", filepath.Base(file), len(exchanges)-before)
	}
	return exchanges
}
