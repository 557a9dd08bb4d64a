package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// Whatever a user can write, call or read has to be found in docs/.

func TestEveryWordOfTheCaddyfileIsDocumented(t *testing.T) {
	g := newGateway(t, plainSite)
	known := regexp.MustCompile(`known are ([a-z0-9_]+(?:, [a-z0-9_]+)*), at `)
	for block, caddyfile := range map[string]string{
		"the global option":  "{\n\tapi_keys {\n\t\tx\n\t}\n}\n",
		"api_keys":           ":8080 {\n\tapi_keys {\n\t\tx\n\t}\n}\n",
		"api_key_auth":       ":8080 {\n\tapi_key_auth {\n\t\tx\n\t}\n}\n",
		"api_key_management": ":8080 {\n\tapi_key_management {\n\t\tx\n\t}\n}\n",
		"identity":           ":8080 {\n\tapi_key_management {\n\t\tidentity {\n\t\t\tx\n\t\t}\n\t}\n}\n",
		"leak_alerts":        ":8080 {\n\tapi_key_management {\n\t\tleak_alerts {\n\t\t\tx\n\t\t}\n\t}\n}\n",
	} {
		g.configure(caddyfile)
		_, stderr, _ := g.run(g.command("adapt", "--config", g.file))
		match := known.FindStringSubmatch(stderr)
		if match == nil {
			t.Fatalf("%s does not tell its words: %s", block, stderr)
		}
		for word := range strings.SplitSeq(match[1], ", ") {
			requireDocumented(t, "the word of "+block, word)
		}
	}
}

func TestEveryFieldOfTheJSONIsDocumented(t *testing.T) {
	for _, module := range []any{caddymodule.App{}, caddymodule.Gate{}, caddymodule.Mount{}, caddymodule.Provider{}, caddymodule.LogFilter{}, boltstore.Driver{}} {
		requireFieldsDocumented(t, reflect.TypeOf(module))
	}
}

func requireFieldsDocumented(t *testing.T, kind reflect.Type) {
	t.Helper()
	for i := range kind.NumField() {
		field := kind.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		requireDocumented(t, fmt.Sprint("the field of ", kind), name)
		if inner := field.Type; inner.Kind() == reflect.Pointer && inner.Elem().Kind() == reflect.Struct {
			requireFieldsDocumented(t, inner.Elem())
		}
	}
}

func TestEveryCommandAndFlagIsDocumented(t *testing.T) {
	g := newGateway(t, plainSite)
	help := func(args ...string) string {
		stdout, _, _ := g.run(g.command(append(append([]string{"api-keys"}, args...), "--help")...))
		return stdout
	}
	_, list, _ := strings.Cut(help(), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	flags := regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`)
	found := 0
	for line := range strings.Lines(list) {
		command := strings.Fields(line)[0]
		requireDocumented(t, "the command", command)
		for _, match := range flags.FindAllStringSubmatch(help(command), -1) {
			found++
			if match[1] != "--help" {
				requireDocumented(t, "the flag of "+command, match[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d flags were found in what --help says", found)
	}
}

func TestEverySeriesAndReasonIsDocumented(t *testing.T) {
	g := startGateway(t, plainSite)
	g.requireStatus(200, "GET", "/", g.issue(nil)["key"])
	series := regexp.MustCompile(`# TYPE (caddy_api_keys_\S+)`).FindAllStringSubmatch(g.get("/metrics"), -1)
	if len(series) < 10 {
		t.Errorf("there are only %d series", len(series))
	}
	for _, match := range series {
		requireDocumented(t, "the series", match[1])
	}
	metrics, observer := readText(t, "../../docs/metrics.md"), readText(t, "../../apikey/observer.go")
	named := func(what, word string) {
		if !regexp.MustCompile(`\b` + word + `\b`).MatchString(metrics) {
			t.Errorf("docs/metrics.md does not name the %s %s", what, word)
		}
	}
	for _, reason := range apikey.Reasons() {
		named("reason", reason.String())
	}
	operations := inSources(t, "apikey", `k\.(?:view|update)[A-Za-z]*\(ctx, "([a-z]+)"`)
	for _, operation := range operations {
		named("operation", operation)
		if !strings.Contains(observer, `"`+operation+`"`) {
			t.Errorf("apikey/observer.go does not name the operation %s", operation)
		}
	}
	if !slices.Contains(operations, "lookup") {
		t.Error("the operations were not found in the sources")
	}
}

func TestEveryRouteOfTheAdminEndpointIsDocumented(t *testing.T) {
	routes := inSources(t, "caddymodule", `adminBase ?\+ ?"([a-z_/]*[a-z])`)
	for _, route := range routes {
		requireDocumented(t, "the admin route", "/api_keys/"+route)
	}
	for _, route := range []string{"ready", "stats", "import", "export"} {
		if !slices.Contains(routes, route) {
			t.Errorf("the route %s was not found in the sources", route)
		}
	}
}

func TestEveryEventAndItsDataAreDocumented(t *testing.T) {
	names := inSources(t, "caddymodule", `"(api_key_[a-z_]+)"`)
	for _, name := range names {
		if name != "api_key_auth" && name != "api_key_management" { // the directives
			requireDocumented(t, "the event", name)
		}
	}
	if !slices.Contains(names, "api_key_revoked") {
		t.Error("the events were not found in the sources")
	}

	// Events and the lines of the audit log have the same data.
	g := startGateway(t, plainSite)
	first := g.issue(map[string]string{"scope": "read-write"})
	made := decode(t, g.send("POST", "/v1/api-keys", first["key"], `{"name":"second","expiresAt":"2100-01-01T00:00:00Z"}`).body)
	for _, args := range [][]string{{"update", first["id"], "--name", "new"}, {"rotate", first["id"]}, {"revoke", made.Data["id"]}} {
		if _, stderr, code := g.run(g.command(append([]string{"api-keys"}, args...)...)); code != 0 {
			t.Fatalf("%q: %s", args, stderr)
		}
	}
	lines := 0
	for text := range strings.Lines(g.log()) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) != nil || line["logger"] != "api_keys.audit" {
			continue
		}
		lines++
		for field := range line {
			if !slices.Contains([]string{"level", "ts", "logger", "msg"}, field) {
				requireDocumented(t, "the field of events", field)
			}
		}
	}
	if lines < 5 {
		t.Errorf("the audit log has %d lines", lines)
	}
}

// requireDocumented checks that docs/ names a word of a face, as code: not every
// "name" or "path" in a sentence is meant.
func requireDocumented(t *testing.T, what, word string) {
	t.Helper()
	named := regexp.MustCompile("[`\"' ]" + regexp.QuoteMeta(word) + "([`\"' ,/?]|$)")
	for _, code := range codeOf(t) {
		if named.MatchString(" " + code) {
			return
		}
	}
	t.Errorf("%s %s is not documented in docs/", what, word)
}

var (
	spans    = regexp.MustCompile("`([^`\n]+)`")
	codeRead []string
)

// codeOf returns the code in docs/: what stands between backticks.
func codeOf(t *testing.T) []string {
	t.Helper()
	if codeRead != nil {
		return codeRead
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("found no pages: %v", err)
	}
	for _, page := range pages {
		for _, match := range spans.FindAllStringSubmatch(fences.ReplaceAllString(readText(t, page), ""), -1) {
			codeRead = append(codeRead, match[1])
		}
	}
	return codeRead
}

// inSources returns what a pattern finds in the sources of a folder, each once.
func inSources(t *testing.T, folder, pattern string) (found []string) {
	t.Helper()
	folder = filepath.Join("../..", folder)
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(readText(t, filepath.Join(folder, name)), -1) {
				found = append(found, match[1])
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
