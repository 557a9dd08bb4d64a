package main_test

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var examples = []string{"../../Caddyfile.example", "../../demo/Caddyfile"}

func TestTheExamplesAreFormattedAndValid(t *testing.T) {
	g := newGateway(t, plainSite)
	g.env = append(g.env, "DEMO_DIR="+g.home)
	for _, example := range examples {
		file, err := filepath.Abs(example)
		if err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := g.run(g.command("fmt", "--diff", file))
		for line := range strings.Lines(stdout) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: caddy fmt would change %q", example, line)
			}
		}
		if code != 0 || stderr != "" {
			t.Errorf("%s: caddy fmt: exit code %d, %s", example, code, stderr)
		}
		for _, command := range []string{"adapt", "validate"} {
			_, stderr, code := g.run(g.command(command, "--config", file, "--adapter", "caddyfile"))
			if code != 0 || strings.Contains(stderr, `"level":"warn"`) {
				t.Errorf("%s: caddy %s: exit code %d, %s", example, command, code, stderr)
			}
		}
	}
	if files := filesBelow(t, g.home); len(files) != 1 { // the Caddyfile of g
		t.Errorf("they left %v", files)
	}
}

func TestTheExampleIsAGateway(t *testing.T) {
	example, err := os.ReadFile(examples[0])
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, plainSite)
	g.configure(g.here(string(example)))
	g.start()
	g.requireStatus(401, "GET", "/", "")
	token := g.issue(nil)["key"]
	g.requireStatus(200, "GET", "/", token)
	// A token in a URL is in no log, not in that of errors either.
	g.requireStatus(200, "GET", "/?key="+token, token)
	g.upstream.Close()
	g.requireStatus(502, "GET", "/?key="+token, token)
}

func TestValidateBesideTheRunningServerTouchesNothing(t *testing.T) {
	g := startGateway(t, plainSite)
	key := g.issue(nil)
	g.requireStatus(200, "GET", "/", key["key"])
	waitFor(t, "the use to be written", func() bool {
		return strings.Contains(g.get("/metrics"), "\ncaddy_api_keys_usage_pending 0\n")
	})
	before := filesBelow(t, filepath.Dir(g.store()))
	for _, args := range [][]string{
		{"validate", "--config", g.file},
		{"adapt", "--config", g.file, "--validate"},
	} {
		if _, stderr, code := g.run(g.command(args...)); code != 0 {
			t.Errorf("caddy %s: exit code %d, %s", args[0], code, stderr)
		}
	}
	after := filesBelow(t, filepath.Dir(g.store()))
	// The rest is Caddy's, which tidies it up in the background.
	others := func(name string, _ time.Time) bool { return !strings.Contains(name, "api-keys") }
	maps.DeleteFunc(before, others)
	maps.DeleteFunc(after, others)
	if len(before) != 1 || !maps.Equal(before, after) {
		t.Errorf("files before %v\nand after %v", before, after)
	}
	g.requireStatus(200, "GET", "/", key["key"])
}

func TestASecondServerOnTheSameFileRefusesToStart(t *testing.T) {
	g := startGateway(t, plainSite)
	second := newGateway(t, strings.Replace(plainSite, "api_keys {", "api_keys {\n\t\tstorage bolt "+g.store(), 1))
	stdout, stderr, code := second.run(second.command("run", "--config", second.file))
	if code == 0 {
		t.Fatal("it started and ended with exit code 0")
	}
	for _, part := range []string{"opening key store", g.store(), "another process"} {
		if !strings.Contains(stdout+stderr, part) {
			t.Errorf("it does not say %q: %s", part, lastLines(stdout+stderr, 3))
		}
	}
	// The first one goes on, and the file is free again when it has stopped.
	key := g.issue(nil)
	g.stop()
	second.start()
	second.requireStatus(200, "GET", "/", key["key"])
}

// filesBelow returns when each file was last changed, by its path below dir.
func filesBelow(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	files := make(map[string]time.Time)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = info.ModTime()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
