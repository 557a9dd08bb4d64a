package main_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A fence is an example in README.md or docs, by its language:
//
//	caddyfile  a whole Caddyfile: formatted and valid
//	json       JSON; with the member "apps", a valid configuration
//	sh         commands that work, one after the other, with the first Caddyfile
//	           of README.md (run by the tests with the tag "clients"), except
//	           those that notRun names
//	caddyfile ratelimit
//	           a whole Caddyfile for a Caddy with that module: formatted here, run
//	           by the test in tools/ratelimit
//	promql     expressions for Prometheus, one a line (read by promtool in the tests
//	           with the tag "clients")
//	text       anything else
//
// Pages in docs/recipes have tests of their own, which run all they show.
type fence struct {
	file, language, text string
}

// notRun has the commands that the documentation shows and no test runs, with
// the reason.
var notRun = map[string]string{
	"xcaddy build --with": "takes the plugin from the module proxy; cmd/build is tested with the clone itself",
	"make demo":           "the demo has its own test",
	"make test":           "this is a part of it",
}

var fences = regexp.MustCompile("(?ms)^ *```([^\n`]*)\n(.*?)^ *```$")

// pages returns the files of the documentation.
func pages(t *testing.T) []string {
	t.Helper()
	files := []string{"../../README.md"}
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func documentation(t *testing.T) (found []fence) {
	t.Helper()
	for _, file := range pages(t) {
		for _, match := range fences.FindAllStringSubmatch(readText(t, file), -1) {
			found = append(found, fence{strings.TrimPrefix(file, "../../"), match[1], match[2]})
		}
	}
	return found
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// commands returns the lines of a fence of the language sh, joined where they
// end with a backslash.
func (f fence) commands() (lines []string) {
	for line := range strings.Lines(strings.ReplaceAll(f.text, "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

func isNotRun(command string) bool {
	for start := range notRun {
		if strings.HasPrefix(command, start) {
			return true
		}
	}
	return false
}

func TestEveryExampleInTheDocumentationIsValid(t *testing.T) {
	g := newGateway(t, plainSite)
	for _, name := range []string{"pepper", "pepper-2"} { // in /etc/caddy
		if err := os.WriteFile(filepath.Join(g.home, name), []byte("0123456789abcdef "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g.env = append(g.env, "PEPPER_FILE="+filepath.Join(g.home, "pepper")) // see docs/deploy.md
	for _, f := range documentation(t) {
		switch f.language {
		case "caddyfile":
			requireValid(t, g, f, "Caddyfile", "--adapter", "caddyfile")
			requireFormatted(t, g, f)
		case "caddyfile ratelimit":
			requireFormatted(t, g, f)
		case "json":
			var config map[string]json.RawMessage
			if err := json.Unmarshal([]byte(f.text), &config); err != nil {
				t.Errorf("%s: an example is not a JSON object: %v\n%s", f.file, err, f.text)
			} else if config["apps"] != nil {
				requireValid(t, g, f, "caddy.json")
			}
		case "sh":
			if len(f.commands()) == 0 {
				t.Errorf("%s: an example has no command", f.file)
			}
		case "promql", "text":
		default:
			t.Errorf("%s: an example is marked %q, which no test knows; mark it caddyfile, json, sh, promql or text", f.file, f.language)
		}
	}
}

func requireFormatted(t *testing.T, g *gateway, f fence) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.home, "Caddyfile"), []byte(f.text), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, _, code := g.run(g.command("fmt", "--diff", "Caddyfile")); code != 0 {
		t.Errorf("%s: caddy fmt would change an example:\n%s", f.file, stdout)
	}
}

func requireValid(t *testing.T, g *gateway, f fence, name string, args ...string) {
	t.Helper()
	text := strings.ReplaceAll(f.text, "/etc/caddy/", g.home+"/")
	if err := os.WriteFile(filepath.Join(g.home, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := g.run(g.command(append([]string{"validate", "--config", name}, args...)...)); code != 0 {
		t.Errorf("%s: an example is not valid: %s\n%s", f.file, lastLines(stderr, 1), f.text)
	}
}

func TestEveryLinkInTheDocumentationLeadsToAFile(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	for _, page := range pages(t) {
		for _, match := range links.FindAllStringSubmatch(readText(t, page), -1) {
			file := page
			if match[1] != "" {
				file = filepath.Join(filepath.Dir(page), match[1])
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %v", page, err)
			} else if match[2] != "" && !slices.Contains(anchors(t, file), match[2]) {
				t.Errorf("%s: %s has no heading for #%s", page, file, match[2])
			}
		}
	}
}

// anchors returns what the headings of a page are linked by.
func anchors(t *testing.T, page string) (all []string) {
	t.Helper()
	dropped := regexp.MustCompile(`[^a-z0-9 _-]`)
	for _, match := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(readText(t, page), -1) {
		all = append(all, strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(match[1]), ""), " ", "-"))
	}
	return all
}

func TestEveryCommandThatIsNotRunIsInTheDocumentation(t *testing.T) {
	shown := make(map[string]bool)
	for _, f := range documentation(t) {
		if f.language == "sh" {
			for _, command := range f.commands() {
				for start := range notRun {
					shown[start] = shown[start] || strings.HasPrefix(command, start)
				}
			}
		}
	}
	for start := range notRun {
		if !shown[start] {
			t.Errorf("%q is in no document: take it off the list", start)
		}
	}
}

// The log format keeps tokens out of fields that Caddy does not know to be secret.
func TestTheCaddyfilesToStartFromHaveTheLogFormat(t *testing.T) {
	files := map[string]string{}
	for _, name := range []string{"Caddyfile.example", "demo/Caddyfile"} {
		files[name] = readText(t, "../../"+name)
	}
	for _, f := range documentation(t) {
		if f.file == "README.md" && f.language == "caddyfile" {
			files[f.file] = f.text
		}
	}
	if len(files) != 3 {
		t.Fatal("README.md has no Caddyfile")
	}
	g := newGateway(t, plainSite)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(g.home, "Caddyfile"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := g.run(g.command("adapt", "--config", "Caddyfile"))
		var config struct {
			Logging struct {
				Logs map[string]struct {
					Encoder struct{ Format string }
				}
			}
		}
		if err := json.Unmarshal([]byte(stdout), &config); err != nil || code != 0 {
			t.Errorf("%s: exit code %d, %v, %s", name, code, err, stderr)
		}
		if format := config.Logging.Logs["default"].Encoder.Format; format != "api_keys" {
			t.Errorf("%s: the format of its log is %q", name, format)
		}
	}
}
