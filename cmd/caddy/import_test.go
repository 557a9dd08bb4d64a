package main_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importSite keeps keys under a pepper, so that their first use shows in the store.
func importSite(words string) string {
	return strings.Replace(plainSite, "api_keys {", "api_keys {\n\t\tpepper {env.PEPPER}\n\t\t"+words, 1)
}

func foreignToken(n int) string { return fmt.Sprintf("legacy-%06d-of-another-gateway", n) }

// importFile writes the hashes of so many foreign tokens.
func (g *gateway) importFile(name string, n int) string {
	g.t.Helper()
	path := filepath.Join(g.home, name)
	f, err := os.Create(path)
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range n {
		fmt.Fprintf(w, `{"hash":"%x","algorithm":"sha256","name":"legacy %d","organizationId":"acme","userId":"carol"}`+"\n", sha256.Sum256([]byte(foreignToken(i))), i)
	}
	if err := w.Flush(); err != nil {
		g.t.Fatal(err)
	}
	return path
}

type importResult struct {
	Imported   int
	Duplicates []int
	Refused    []struct {
		Line    int
		Message string
	}
}

func (g *gateway) importing(args ...string) (result importResult, stderr string, code int) {
	g.t.Helper()
	stdout, stderr, code := g.run(g.command(append([]string{"api-keys", "import", "--json"}, args...)...))
	if err := json.Unmarshal([]byte(stdout), &result); err != nil {
		g.t.Fatalf("%v: %.200q, %s", err, stdout, stderr)
	}
	return result, stderr, code
}

func (g *gateway) stored() (keys int) {
	g.t.Helper()
	stdout, stderr, _ := g.run(g.command("api-keys", "stats", "--json"))
	var stats struct{ Keys int }
	if err := json.Unmarshal([]byte(stdout), &stats); err != nil {
		g.t.Fatalf("%v: %s", err, stderr)
	}
	return stats.Keys
}

// startImporting returns a gateway with a pepper.
func startImporting(t *testing.T, words string) *gateway {
	t.Helper()
	g := newGateway(t, importSite(words))
	g.env = append(g.env, "PEPPER=salt-and-more-salt-0001")
	g.start()
	return g
}

func TestASecondImportReportsEveryKeyAsADuplicate(t *testing.T) {
	const n = 2000
	g := startImporting(t, "")
	file := g.importFile("keys", n)
	if result, stderr, code := g.importing(file); code != 0 || stderr != "" || result.Imported != n || len(result.Duplicates)+len(result.Refused) != 0 {
		t.Fatalf("exit code %d, %d imported, %d duplicates, %q", code, result.Imported, len(result.Duplicates), stderr)
	}
	token := foreignToken(1234)
	g.requireStatus(200, "GET", "/", token)
	g.requireStatus(401, "GET", "/", foreignToken(n))
	waitFor(t, "a digest of ours", func() bool {
		all, _, _ := g.run(g.command("api-keys", "export", "--with-hashes"))
		return strings.Count(all, `"token-sha256"`) == n-1 && strings.Count(all, `"token-hmac-sha256"`) == 1
	})
	for _, args := range [][]string{{"--dry-run", file}, {file}} {
		result, stderr, code := g.importing(args...)
		if code != 0 || stderr != "" || result.Imported != 0 || len(result.Refused) != 0 || len(result.Duplicates) != n || result.Duplicates[n-1] != n {
			t.Errorf("%q: exit code %d, %d imported, %d duplicates, %q", args, code, result.Imported, len(result.Duplicates), stderr)
		}
	}
	stdout, stderr, code := g.run(g.command("api-keys", "import", file))
	if lines := strings.Split(stdout, "\n"); code != 0 || stderr != "" || strings.Fields(lines[0])[1] != "0" || strings.Join(strings.Fields(lines[1]), " ") != "duplicates 2000" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if keys := g.stored(); keys != n {
		t.Errorf("%d keys, want %d", keys, n)
	}
	g.requireStatus(200, "GET", "/", token)
	g.requireStatus(200, "GET", "/", foreignToken(0))
}

func TestAnImportBeyondTheLimitOfAnOrganizationImportsNothing(t *testing.T) {
	const n, limit = 2500, 2100
	g := startImporting(t, fmt.Sprint("max_keys_per_organization ", limit))
	file := g.importFile("keys", n)
	g.issue(nil)
	for _, args := range [][]string{{"--dry-run", file}, {file}} {
		result, stderr, code := g.importing(args...)
		if code != 1 || !strings.Contains(stderr, fmt.Sprintf("%d lines cannot be imported, nothing was", n-limit+1)) || result.Imported != limit-1 || len(result.Refused) != n-limit+1 {
			t.Fatalf("%q: exit code %d, %d can be imported, %d refused, %q", args, code, result.Imported, len(result.Refused), stderr)
		}
		if first := result.Refused[0]; first.Line != limit || !strings.Contains(first.Message, "as many active API keys as it may have") {
			t.Errorf("%q: %+v", args, first)
		}
	}
	if keys := g.stored(); keys != 1 {
		t.Errorf("%d keys, want the one from before", keys)
	}
	if result, stderr, code := g.importing(g.importFile("fewer", limit-1)); code != 0 || result.Imported != limit-1 {
		t.Errorf("exit code %d, %d imported, %q", code, result.Imported, stderr)
	}
}
