package caddymodule_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	firstPepper  = "salt-and-more-salt-0001"
	secondPepper = "salt-and-more-salt-0002"
)

func (g *gateway) write(name, text string) {
	g.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(text), 0o600); err != nil {
		g.Fatal(err)
	}
}

func peppered(secrets ...string) string {
	var text strings.Builder
	for _, s := range secrets {
		text.WriteString("pepper " + s + "\n")
	}
	return "api_keys {\n" + text.String() + "}"
}

func TestASecretThatIsNotThereIsAnError(t *testing.T) {
	g := start(t, ``, site)
	g.write("empty", "")
	g.write("newline", "\n")
	g.write("short", "short\n")
	t.Setenv("EMPTY_PEPPER", "")
	k := g.issue(reader)
	for _, secret := range []string{"{file.DIR/nowhere}", "{file.DIR/empty}", "{file.DIR/newline}", "{file.DIR/short}", "{file.DIR}", "{env.EMPTY_PEPPER}", "{env.NO_SUCH_PEPPER}", "{unknown.placeholder}"} {
		for _, global := range []string{peppered(secret), peppered(secret, "{file.DIR/short}")} {
			if err := g.load(global, site); err == nil {
				t.Errorf("%s was taken for a pepper", secret)
			} else if !strings.Contains(err.Error(), "pepper") {
				t.Errorf("%s: %v", secret, err)
			}
		}
		if strings.Contains(secret, "short") {
			continue // the secrets of others may be
		}
		if err := g.load("api_keys {\nimport_secret legacy "+secret+"\n}", site); err == nil || !strings.Contains(err.Error(), "import_secret legacy") {
			t.Errorf("%s was taken for a secret of an import: %v", secret, err)
		}
	}
	g.passed(g.send("GET", "/", "", k.header()))
}

func TestAStoreThatNeedsAPepperIsNotServedWithoutIt(t *testing.T) {
	g := start(t, ``, site)
	old := g.issue(reader)
	g.write("first", firstPepper+"\n")
	t.Setenv("SECOND_PEPPER", secondPepper)
	if err := g.load(peppered("{file.DIR/first}"), site); err != nil {
		t.Fatal(err)
	}
	k := g.issue(reader)
	g.passed(g.send("GET", "/", "", old.header()))
	g.passed(g.send("GET", "/", "", k.header()))

	for name, global := range map[string]string{"none": ``, "another": peppered("{env.SECOND_PEPPER}")} {
		if err := g.load(global, site); err == nil || !strings.Contains(err.Error(), "need a pepper that is not configured") {
			t.Errorf("%s: %v", name, err)
		}
		// The configuration before is in force.
		g.passed(g.send("GET", "/", "", k.header()))
		g.passed(g.send("GET", "/", "", g.issue(reader).header()))
	}
	if err := g.load(peppered("{env.SECOND_PEPPER}", "{file.DIR/first}"), site); err != nil {
		t.Fatal(err)
	}
	g.passed(g.send("GET", "/", "", old.header()))
	g.passed(g.send("GET", "/", "", k.header()))
	answers := []string{g.operate("GET", "/config/", "").Text, g.operate("GET", "/metrics", "").Text, g.operate("GET", "/api_keys/export?hashes=true", "").Text}

	stop(t)
	if err := g.load(``, site); err == nil || !strings.Contains(err.Error(), "need a pepper") {
		t.Errorf("it started without the pepper: %v", err)
	}
	if err := g.load(peppered("{env.SECOND_PEPPER}", "{file.DIR/first}"), site); err != nil {
		t.Fatal(err)
	}
	g.passed(g.send("GET", "/", "", k.header()))

	logged, err := os.ReadFile(filepath.Join(g.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(g.storePath())
	if err != nil {
		t.Fatal(err)
	}
	for _, pepper := range []string{firstPepper, secondPepper} {
		if bytes.Contains(logged, []byte(pepper)) || bytes.Contains(stored, []byte(pepper)) || strings.Contains(strings.Join(answers, ""), pepper) {
			t.Error("a pepper is in the log, the store, or an answer of the admin endpoint")
		}
	}
	if !strings.Contains(answers[0], "{env.SECOND_PEPPER}") || !strings.Contains(answers[2], `"hash"`) {
		t.Errorf("there is little to look at: %q", answers)
	}
}
