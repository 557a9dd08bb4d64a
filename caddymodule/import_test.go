package caddymodule_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

const oldSecret = "the secret of the old gateway"

// importKey imports the key of a token that another gateway has made.
func (g *gateway) importKey(token string) {
	g.Helper()
	h := hmac.New(sha256.New, []byte(oldSecret))
	h.Write([]byte(token))
	line := fmt.Sprintf(`{"hash":"%x","algorithm":"hmac-sha256","secret":"old","name":"legacy","organizationId":"acme","userId":"carol"}`, h.Sum(nil))
	if a := g.operate("POST", "/api_keys/import", line, "Content-Type: application/x-ndjson"); a.Status != 200 || a.Data["imported"] != 1.0 {
		g.Fatalf("%d %s", a.Status, a.Text)
	}
}

func TestAnImportedKeyIsKnownWithoutTheStore(t *testing.T) {
	t.Setenv("OLD_SECRET", oldSecret)
	g := start(t, "api_keys {\nimport_secret old {env.OLD_SECRET}\n}", site)
	for _, token := range []string{"used-by-carol", "not-used-by-carol"} {
		g.importKey(token)
	}
	g.passed(g.send("GET", "/", "", "Authorization: Bearer used-by-carol"))
	if err := running(t).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	restore := g.cut()
	for range 3 {
		g.passed(g.send("GET", "/", "", "Authorization: Bearer used-by-carol"))
		g.refused(g.send("GET", "/", "", "Authorization: Bearer not-used-by-carol"), 503, "store_unavailable", noChallenge)
		g.refused(g.send("GET", "/", "", "Authorization: Bearer of-nobody"), 503, "store_unavailable", noChallenge)
	}
	restore()
	g.passed(g.send("GET", "/", "", "Authorization: Bearer not-used-by-carol"))
	g.refused(g.send("GET", "/", "", "Authorization: Bearer of-nobody"), 401, "invalid_token", invalidToken)
}

func TestTheLogSaysWhichSecretOfAnImportIsMissing(t *testing.T) {
	t.Setenv("OLD_SECRET", oldSecret)
	const with = "api_keys {\nimport_secret old {env.OLD_SECRET}\n}"
	g := start(t, with, site)
	g.importKey("used-by-carol")
	if err := g.load(``, site); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"used-by-carol", "of-nobody"} { // nobody can tell them apart
		g.refused(g.send("GET", "/", "", "Authorization: Bearer "+token), 503, "store_unavailable", noChallenge)
	}
	line := g.awaitLog(func(line map[string]any) bool {
		return line["msg"] == "API keys cannot be checked, requests are answered 503"
	})
	if cause := fmt.Sprint(line["error"]); !strings.Contains(cause, "configure it again with import_secret") || strings.Contains(cause, oldSecret) {
		t.Errorf("the log says %q", cause)
	}
	if err := g.load(with, site); err != nil {
		t.Fatal(err)
	}
	g.passed(g.send("GET", "/", "", "Authorization: Bearer used-by-carol"))
	g.refused(g.send("GET", "/", "", "Authorization: Bearer of-nobody"), 401, "invalid_token", invalidToken)
}
