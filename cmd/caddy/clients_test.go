//go:build clients

package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestClientsOfTheContractWorkUnchanged(t *testing.T) {
	g := startGateway(t, plainSite)
	first := g.issue(map[string]string{"scope": "read-write"})
	for name, call := range map[string]func() (string, error){
		"curl":            g.program("sh", "testdata/clients/curl.sh", g.url, first["key"]),
		"node fetch":      g.program("node", "testdata/clients/fetch.mjs", g.url, first["key"]),
		"Python requests": g.program("python3", "testdata/clients/requests_post.py", g.url, first["key"]),
		"Go net/http":     func() (string, error) { return netHTTP(g.url, first["key"]) },
	} {
		t.Run(name, func(t *testing.T) {
			stdout, err := call()
			answers := strings.FieldsFunc(stdout, func(r rune) bool { return r == '\n' })
			if err != nil || len(answers) != 2 {
				t.Fatalf("%v, %q", err, stdout)
			}
			empty, made := decode(t, []byte(answers[0])), decode(t, []byte(answers[1]))
			if empty.Code != 400 || empty.Data["field"] != "name" {
				t.Errorf("{} is answered %s", answers[0])
			}
			if made.Code != 200 || made.Message != "success" || made.Data["name"] != "x" || made.Data["userId"] != "alice" {
				t.Errorf(`{"name":"x"} is answered %v`, made)
			}
			g.requireStatus(200, "GET", "/", made.Data["key"])
		})
	}
}

// program is a client that prints the answers.
func (g *gateway) program(name string, args ...string) func() (string, error) {
	return func() (string, error) {
		stdout, stderr, code := g.run(exec.Command(name, args...))
		if code != 0 {
			return stdout, fmt.Errorf("%s: exit code %d: %s", name, code, stderr)
		}
		return stdout, nil
	}
}

// netHTTP is the client of the contract in Go.
func netHTTP(address, token string) (answers string, err error) {
	for _, body := range []string{`{}`, `{"name":"x"}`} {
		req, err := http.NewRequest("POST", address+"/v1/api-keys", strings.NewReader(body))
		if err != nil {
			return "", err
		}
		req.Header.Add("Authorization", "Bearer "+token)
		req.Header.Add("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		if err != nil {
			return "", err
		}
		answers += string(answer)
	}
	return answers, nil
}

// Each document is a session of its own, with the first Caddyfile of README.md.
func TestClientCommandsInTheDocumentationWork(t *testing.T) {
	var order, sessions = []string{}, make(map[string][]string)
	var caddyfile string
	for _, f := range documentation(t) {
		if f.language == "caddyfile" && f.file == "README.md" && caddyfile == "" {
			caddyfile = f.text
		}
		if f.language != "sh" || strings.HasPrefix(f.file, recipes) {
			continue
		}
		for _, command := range f.commands() {
			if isNotRun(command) {
				continue
			}
			if sessions[f.file] == nil {
				order = append(order, f.file)
			}
			sessions[f.file] = append(sessions[f.file], command)
		}
	}
	if len(sessions["README.md"]) == 0 {
		t.Error("README.md has no command to run")
	}
	for _, file := range order {
		t.Run(strings.ReplaceAll(file, "/", "_"), func(t *testing.T) {
			g := newGateway(t, plainSite)
			g.configure(g.here(caddyfile))
			g.start()
			if err := os.Mkdir(g.scripts(), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(binary, filepath.Join(g.scripts(), "caddy")); err != nil { // where xcaddy writes it
				t.Fatal(err)
			}
			// A command that fails ends the session, a refused request is a failure.
			script := "set -euo pipefail\ncurl() { command curl -sS --fail-with-body \"$@\"; }\n" +
				g.here(strings.Join(sessions[file], "\n"))
			cmd := exec.Command("bash", "-xc", script)
			cmd.Dir, cmd.Env = g.scripts(), g.env
			stdout, trace, code := g.run(cmd)
			if code != 0 {
				t.Errorf("exit code %d\n%s\n%s", code, stdout, trace)
			}
			t.Logf("%d commands", len(sessions[file]))
		})
	}
}

func TestClientPromtoolReadsTheExpressionsInTheDocumentation(t *testing.T) {
	found := 0
	for _, f := range documentation(t) {
		if f.language != "promql" {
			continue
		}
		rules := "groups:\n- name: " + f.file + "\n  rules:\n"
		for expression := range strings.Lines(f.text) {
			found++
			rules += fmt.Sprintf("  - alert: A%d\n    expr: %s\n", found, strings.TrimSpace(expression))
		}
		file := filepath.Join(t.TempDir(), "rules.yml")
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		if output, err := exec.Command("promtool", "check", "rules", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", f.file, err, output)
		}
	}
	if found == 0 {
		t.Error("there are no expressions")
	}
}

// root returns the folder of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
