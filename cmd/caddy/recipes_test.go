package main_test

import (
	"os"
	"strings"
	"testing"
)

// recipes are pages that a test walks through as a reader would.
const recipes = "docs/recipes/"

// recipe hands out the examples of a page in their order. The test fails when it
// leaves one out.
type recipe struct {
	t    *testing.T
	page string
	left []fence
}

func openRecipe(t *testing.T, page string) *recipe {
	t.Helper()
	r := &recipe{t: t, page: page}
	for _, f := range documentation(t) {
		if f.file == recipes+page {
			r.left = append(r.left, f)
		}
	}
	t.Cleanup(func() {
		if len(r.left) > 0 && !t.Failed() {
			t.Errorf("%s has examples that the test does not run: %q", page, r.left)
		}
	})
	return r
}

// next returns the next example, which is of a language.
func (r *recipe) next(language string) string {
	r.t.Helper()
	if len(r.left) == 0 || r.left[0].language != language {
		r.t.Fatalf("%s: the next example is not of the language %s: %q", r.page, language, r.left)
	}
	text := r.left[0].text
	r.left = r.left[1:]
	return text
}

// follow runs commands of a recipe; there stands for what is elsewhere on the
// reader's machine: old, new, ...
func (g *gateway) follow(commands string, there ...string) string {
	g.t.Helper()
	if err := os.MkdirAll(g.scripts(), 0o700); err != nil {
		g.t.Fatal(err)
	}
	there = append(there, "/etc/caddy/Caddyfile", g.file)
	stdout, stderr, code := g.shell("set -eu\n" + strings.NewReplacer(there...).Replace(g.here(commands)))
	if code != 0 {
		g.t.Fatalf("exit code %d\n%s\n%s\n%s", code, commands, stdout, stderr)
	}
	return stdout
}
