package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCommandsDoWhatTheirScriptsSay(t *testing.T) {
	files, err := filepath.Glob("testdata/commands/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("found no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			startGateway(t, plainSite).runScript(file)
		})
	}
}

func TestCommandsReachAUnixSocket(t *testing.T) {
	g := newGateway(t, plainSite)
	g.listenAt("unix/"+filepath.Join(g.home, "admin.sock"), freePort(t))
	g.start()
	g.runScript("testdata/commands/revoke.txt")
	g.runScript("testdata/commands/address.txt")
}

func TestATokenIsPrintedOnce(t *testing.T) {
	g := startGateway(t, plainSite)
	for _, form := range [][]string{nil, {"--json"}} {
		args := append([]string{"api-keys", "create", "--organization", "acme", "--user", "alice", "--name", "first"}, form...)
		stdout, stderr, code := g.run(g.command(args...))
		tokens := aToken.FindAllString(stdout, -1)
		if code != 0 || len(tokens) != 1 || strings.Count(stdout, secretOf(tokens[0])) != 1 {
			t.Fatalf("%q: exit code %d, %d tokens", args, code, len(tokens))
		}
		if stderr != "" {
			t.Errorf("%q: standard error has %q", args, stderr)
		}
		g.requireStatus(200, "GET", "/", tokens[0])
		// That it is in no log and no file is checked of every gateway.
	}
}

func TestAKeyWhoseTokenCannotBePrintedIsRevoked(t *testing.T) {
	g := startGateway(t, plainSite)
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer closed.Close()
	outputs := map[string]*os.File{"closed pipe": closed}
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil { // Linux
		defer full.Close()
		outputs["full disk"] = full
	}
	for name, output := range outputs {
		for _, form := range []string{"--json=true", "--json=false"} {
			cmd := g.command("api-keys", "create", "--organization", "acme", "--user", "alice", "--name", name, form)
			cmd.Stdout = output
			_, stderr, code := g.run(cmd)
			if want := "Error: printing the new key, which is revoked again: "; code == 0 || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: exit code %d, standard error %q", name, code, stderr)
			}
		}
	}
	keys := listByCommand(t, g)
	if len(keys) != 2*len(outputs) {
		t.Errorf("there are %d keys, want %d", len(keys), 2*len(outputs))
	}
	for _, key := range keys {
		if key["revokedAt"] == "" {
			t.Errorf("key %s (%s) is not revoked", key["id"], key["name"])
		}
	}
}

func TestARotationWhoseTokenCannotBePrintedSaysWhenTheOldKeyEnds(t *testing.T) {
	g := startGateway(t, plainSite)
	key := g.issue(nil)
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer closed.Close()
	cmd := g.command("api-keys", "rotate", key["id"])
	cmd.Stdout = closed
	_, stderr, code := g.run(cmd)
	old := g.look(key["id"])
	if code != 1 || old["expiresAt"] == "" || strings.Count(stderr, "\n") != 1 ||
		!strings.HasPrefix(stderr, "Error: printing the new key, which is revoked again: ") || !strings.Contains(stderr, "the old key still ends, at "+old["expiresAt"]) {
		t.Errorf("exit code %d, standard error %q; the old key ends at %q", code, stderr, old["expiresAt"])
	}
	if made := g.look(old["replacedBy"]); made["revokedAt"] == "" {
		t.Errorf("the new key is not revoked: %v", made)
	}
}

// A change may be in force though nobody has heard of it.
func TestACommandWhoseAnswerDidNotArriveSaysThatTheChangeMayHaveBeenMade(t *testing.T) {
	const change = "what was to be changed may have been changed: look with list"
	g := newGateway(t, plainSite)
	for name, part := range map[string]string{"none of it": "", "half of it": `{"code":200,"data":{"id":"key_1"`} {
		breaking := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if part != "" {
				w.Header().Set("Content-Length", "1000")
				io.WriteString(w, part)
				w.(http.Flusher).Flush()
			}
			panic(http.ErrAbortHandler)
		}))
		defer breaking.Close()
		for args, says := range map[string]string{
			"create --organization acme --user alice --name first": change,
			"rotate key_0000000000000000000000":                    change,
			"revoke key_0000000000000000000000":                    change,
			"update key_0000000000000000000000 --name x":           change,
			"get key_0000000000000000000000":                       "",
			"list --organization acme":                             "",
		} {
			cmd := g.command(append([]string{"api-keys", "--address", breaking.Listener.Addr().String()}, strings.Fields(args)...)...)
			stdout, stderr, code := g.run(cmd)
			if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "did not arrive") ||
				!strings.Contains(stderr, says) || says == "" && strings.Contains(stderr, "changed") || strings.Contains(stderr, "running") {
				t.Errorf("%s, %s arrived: exit code %d, standard error %q", args, name, code, stderr)
			}
		}
	}
}

func TestAnInterruptedCreateStillShowsTheToken(t *testing.T) {
	asked, interrupted := make(chan struct{}), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-interrupted
		fmt.Fprint(w, `{"code":200,"data":{"id":"key_1","key":"the token"},"message":"success","requestId":"1"}`)
	}))
	defer slow.Close()
	cmd := newGateway(t, plainSite).command("api-keys", "create", "--organization", "acme", "--user", "alice", "--name", "first",
		"--address", slow.Listener.Addr().String())
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	close(interrupted)
	if err := cmd.Wait(); err != nil || !strings.Contains(stdout.String(), "the token") {
		t.Errorf("%v, %q", err, &stdout)
	}
}

func TestAListHasAllKeysOverManyPages(t *testing.T) {
	g := startGateway(t, plainSite)
	const keys = 250
	var issuers sync.WaitGroup
	for issuer := range 5 {
		issuers.Go(func() {
			for i := issuer; i < keys; i += 5 {
				g.issue(map[string]string{"name": strconv.Itoa(i)})
			}
		})
	}
	issuers.Wait()

	listed := listByCommand(t, g)
	ids, names := make(map[string]bool), make(map[string]bool)
	for _, key := range listed {
		ids[key["id"]], names[key["name"]] = true, true
		if key["key"] != "" {
			t.Errorf("the list has the token of %s", key["id"])
		}
	}
	if len(listed) != keys || len(ids) != keys || len(names) != keys {
		t.Errorf("the list has %d keys, %d ids and %d names, want %d of each", len(listed), len(ids), len(names), keys)
	}
	newestFirst := func(a, b map[string]string) int { return strings.Compare(b["id"], a["id"]) }
	if !slices.IsSortedFunc(listed, newestFirst) {
		t.Error("the list is not in order")
	}
	table, _, _ := g.run(g.command("api-keys", "list", "--organization", "acme"))
	if lines := strings.Count(table, "\n"); lines != keys+1 {
		t.Errorf("the table has %d lines, want %d", lines, keys+1)
	}
}

func TestTheCommandSaysWhenAndByWhatAKeyWasUsed(t *testing.T) {
	g := startGateway(t, plainSite)
	key := g.issue(nil)
	g.requireStatus(200, "GET", "/", key["key"])
	used := g.look(key["id"])
	for _, args := range [][]string{{"get", key["id"]}, {"list", "--organization", "acme"}} {
		stdout, _, _ := g.run(g.command(append([]string{"api-keys"}, args...)...))
		if used["lastUsedAt"] == "" || !strings.Contains(stdout, used["lastUsedAt"]) {
			t.Errorf("%q does not say that it was used at %q:\n%s", args, used["lastUsedAt"], stdout)
		}
	}
	stdout, _, _ := g.run(g.command("api-keys", "get", key["id"]))
	for _, part := range []string{"127.0.0.1", "Go-http-client/1.1"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("get does not show %s:\n%s", part, stdout)
		}
	}
}

func TestTheCommandPicksKeysByTheirOwner(t *testing.T) {
	g := startGateway(t, plainSite)
	writer := g.issue(map[string]string{"scope": "read-write", "name": "writer"})
	minted := decode(t, g.send("POST", "/v1/api-keys", writer["key"], `{"name":"minted","serviceAccountId":"nightly"}`).body).Data
	for made := time.Now().UnixMilli(); time.Now().UnixMilli() == made; { // the order of keys of one millisecond is by chance
	}
	g.issue(map[string]string{"userId": "bob", "name": "of bob"})
	listed := func(args ...string) string {
		t.Helper()
		result, _ := g.must(append([]string{"list", "--organization", "acme"}, args...)...)
		var names []string
		for _, item := range result["items"].([]any) {
			names = append(names, item.(map[string]any)["name"].(string))
		}
		return strings.Join(names, ", ")
	}
	for args, want := range map[string]string{
		"--user bob":                            "of bob",
		"--service-account nightly":             "minted",
		"--scope read-write":                    "writer",
		"--status revoked":                      "",
		"--unused-since 2000-01-01T00:00:00Z":   "of bob, minted",
		"--status active --user alice":          "writer",
		"--status active --scope read --user x": "",
	} {
		if got := listed(strings.Fields(args)...); got != want {
			t.Errorf("list %s: %q, want %q", args, got, want)
		}
	}
	g.fails(1, "status", "list", "--organization", "acme", "--status", "dead")

	for _, args := range []string{"", "--organization acme", "--user bob", "--organization acme --user bob " + minted["id"]} {
		g.fails(1, "give", append([]string{"revoke"}, strings.Fields(args)...)...)
	}
	for args, want := range map[string]float64{"--minted-by " + writer["id"]: 1, "--user bob": 1, "--service-account nobody": 0} {
		result, _ := g.must(append([]string{"revoke", "--organization", "acme"}, strings.Fields(args)...)...)
		if result["revoked"] != want {
			t.Errorf("revoke %s: %v, want %v", args, result, want)
		}
	}
	if got := listed("--status", "revoked"); got != "of bob, minted" {
		t.Errorf("revoked are %q", got)
	}
	g.requireStatus(401, "GET", "/", minted["key"])
}

func TestACaddyWithoutAPIKeysSaysSo(t *testing.T) {
	g := startGateway(t, plainSite)
	if err := g.reload("{\n\tadmin {$ADMIN}\n}\n"); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := g.run(g.command("api-keys", "list", "--organization", "acme"))
	if code == 0 || stdout != "" || !strings.Contains(stderr, "no running configuration uses API keys") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

func listByCommand(t *testing.T, g *gateway) []map[string]string {
	t.Helper()
	stdout, stderr, code := g.run(g.command("api-keys", "list", "--organization", "acme", "--json"))
	if code != 0 {
		t.Fatalf("list: exit code %d, %s", code, stderr)
	}
	var list struct{ Items []map[string]string }
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}
