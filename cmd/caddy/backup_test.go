package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// must runs a command that succeeds, and returns what it prints as JSON.
func (g *gateway) must(args ...string) (result map[string]any, stderr string) {
	g.t.Helper()
	stdout, stderr, code := g.run(g.command(append([]string{"api-keys", "--json"}, args...)...))
	if code != 0 {
		g.t.Fatalf("%q: exit code %d: %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil {
		g.t.Fatalf("%q: %v: %s", args, err, stdout)
	}
	return result, stderr
}

// fails runs a command that fails with a sentence and a code.
func (g *gateway) fails(code int, says string, args ...string) {
	g.t.Helper()
	_, stderr, got := g.run(g.command(append([]string{"api-keys"}, args...)...))
	if got != code || !strings.HasPrefix(stderr, "Error: ") || !strings.Contains(stderr, says) || strings.Count(stderr, "\n") != 1 {
		g.t.Errorf("%q: exit code %d, want %d; standard error %q, want %q", args, got, code, stderr, says)
	}
}

// in names a file in the home of the gateway.
func (g *gateway) in(name string) string { return filepath.Join(g.home, name) }

func TestABackupUnderWritesIsSoundAndHasWhatWasAnsweredBefore(t *testing.T) {
	g := startGateway(t, plainSite)
	var before []map[string]string
	for range 20 {
		before = append(before, g.issue(nil))
	}
	g.requireStatus(200, "GET", "/", before[0]["key"])
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				id, _, err := createUntilKilled(g)
				if err != nil {
					t.Error(err)
					return
				}
				if status, _, err := g.ask(http.MethodDelete, "/api_keys/keys/"+id, nil, ""); err != nil || status != http.StatusOK {
					t.Errorf("revoking: HTTP %d, %v", status, err)
				}
			}
		})
	}
	for i := range 3 {
		name := g.in(fmt.Sprintf("backup-%d", i))
		result, stderr := g.must("backup", name)
		if !strings.Contains(stderr, "revoked") || !strings.Contains(stderr, "--revoked-since") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("standard error has %q", stderr)
		}
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 || result["bytes"].(float64) != float64(info.Size()) || result["keys"].(float64) < 20 {
			t.Errorf("%v, %v, %v", info, err, result)
		}
		if checked, _ := g.must("check", name); checked["sound"] != true || checked["keys"] != result["keys"] {
			t.Errorf("%v, and then %v", result, checked)
		}
	}
	if checked, _ := g.must("check"); checked["sound"] != true {
		t.Errorf("hot: %v", checked)
	}
	close(stop)
	writers.Wait()
	g.stop()

	if err := os.Remove(g.store()); err != nil {
		t.Fatal(err)
	}
	g.must("restore", g.in("backup-2"), "--to", g.store())
	g.start()
	for _, key := range before {
		g.requireStatus(200, "GET", "/", key["key"])
	}
	if used := g.look(before[0]["id"]); used["lastUsedAt"] == "" {
		t.Error("the use before the backup is not in it")
	}
}

func TestKeysRevokedAfterABackupComeBackOnlyWhenNobodySaysSo(t *testing.T) {
	g := startGateway(t, plainSite)
	kept, revoked, narrowed := g.issue(nil), g.issue(nil), g.issue(map[string]string{"scope": "read-write"})
	rotated := g.issue(nil)
	g.must("backup", g.in("backup"))
	issued := g.issue(nil)
	for _, args := range [][]string{
		{"revoke", revoked["id"]}, {"update", narrowed["id"], "--scope", "read"}, {"rotate", rotated["id"], "--grace", "0"},
	} {
		g.must(args...)
	}
	g.stop()
	old := g.in("old")
	content, err := os.ReadFile(g.store())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		since []string
		want  int // of what was taken away
		says  bool
	}{
		{"nobody", nil, 200, true},
		{"the audit log", []string{"--revoked-since", g.logFile()}, 401, false},
		{"the old store", []string{"--revoked-since", old}, 401, false},
		{"both", []string{"--revoked-since", old, "--revoked-since", g.logFile()}, 401, false},
	} {
		result, stderr := g.must(append([]string{"restore", g.in("backup"), "--to", g.store(), "--replace"}, test.since...)...)
		if said := strings.Contains(stderr, "good again"); said != test.says {
			t.Errorf("%s: standard error has %q", test.name, stderr)
		}
		if aside, err := os.Stat(fmt.Sprint(result["replaced"])); err != nil || aside.Mode().Perm() != 0o600 {
			t.Errorf("%s: the old store was not kept: %v", test.name, result)
		} else if err := os.Remove(fmt.Sprint(result["replaced"])); err != nil { // the next has its name in this second
			t.Fatal(err)
		}
		if info, err := os.Stat(g.store()); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", test.name, info, err)
		}
		if test.want == 401 && fmt.Sprint(result["revokedAgain"], result["endEarlier"], result["readOnlyAgain"]) != "1 1 1" {
			t.Errorf("%s: %v", test.name, result)
		}
		g.start()
		g.requireStatus(200, "GET", "/", kept["key"])
		g.requireStatus(test.want, "GET", "/", revoked["key"])
		g.requireStatus(test.want, "GET", "/", rotated["key"])
		g.requireStatus(401, "GET", "/", issued["key"])
		want := 200
		if test.want == 401 {
			want = 403
		}
		g.requireStatus(want, "POST", "/", narrowed["key"])
		if checked, _ := g.must("check"); checked["sound"] != true {
			t.Errorf("%s: %v", test.name, checked)
		}
		g.stop()
	}
}

func TestAnAuditLogIsReadAsItWasWritten(t *testing.T) {
	g := startGateway(t, plainSite)
	key := g.issue(map[string]string{"scope": "read-write", "expiresAt": "2100-01-01T00:00:00Z"})
	g.must("backup", g.in("backup"))
	line := func(change, more string) string {
		return `{"level":"info","ts":1795411100.5,"logger":"api_keys.audit","msg":"api key ` + change + `","api_key_id":"` + key["id"] + `"` + more + "}\n"
	}
	const write, read = `,"scope":"read-write","expires_at":"2100-01-01T00:00:00Z"`, `,"scope":"read","expires_at":"2100-01-01T00:00:00Z"`
	const other = `{"level":"info","logger":"http","msg":"api_keys.audit"}` + "\nnot JSON\n"
	for name, test := range map[string]struct {
		log, want string
	}{
		"issued only":              {line("issued", write), "0 0 0"},
		"revoked":                  {other + line("revoked", write), "1 0 0"},
		"without its last break":   {strings.TrimSpace(line("revoked", write)), "1 0 0"},
		"revoked stays revoked":    {line("revoked", write) + line("updated", write), "1 0 0"},
		"the last scope counts":    {line("updated", read) + line("updated", write), "0 0 0"},
		"a smaller scope":          {line("updated", write) + line("updated", read), "0 0 1"},
		"an earlier end":           {line("rotated", `,"scope":"read-write","expires_at":"2030-01-01T00:00:00.5Z"`), "0 1 0"},
		"a later end":              {line("updated", `,"scope":"read-write"`), "0 0 0"},
		"used from elsewhere":      {line("revoked", write) + line("client changed", `,"changed":"network"`), "1 0 0"},
		"of another key":           {strings.ReplaceAll(line("revoked", write), key["id"], "key_0352LEivjpyT0uQI9pd2Xs"), "0 0 0"},
		"no line of the audit log": {other, "has no line of the logger api_keys.audit"},
		"a line without a key":     {strings.ReplaceAll(line("revoked", write), key["id"], ""), "line 1: api_key_id"},
		"a line without a scope":   {line("revoked", ""), "line 1: scope"},
		"a line without a time":    {line("revoked", `,"scope":"read","expires_at":"soon"`), "line 1: expires_at"},
		"a line that was cut":      {other + line("revoked", write)[:90], "line 3: it is not the JSON"},
	} {
		log, to := g.in("audit.log"), g.in("restored")
		if err := os.WriteFile(log, []byte(test.log), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"restore", g.in("backup"), "--to", to, "--revoked-since", log}
		if strings.Contains(test.want, "line") {
			g.fails(1, test.want, args...)
			continue
		}
		result, _ := g.must(args...)
		if got := fmt.Sprint(result["revokedAgain"], result["endEarlier"], result["readOnlyAgain"]); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if err := os.Remove(to); err != nil {
			t.Fatal(err)
		}
	}
	stranger := startGateway(t, plainSite)
	stranger.issue(nil)
	stranger.stop()
	g.fails(1, "none of the keys of the backup", "restore", g.in("backup"), "--to", g.in("restored"), "--revoked-since", stranger.store())
	if _, err := os.Lstat(g.in("restored")); err == nil {
		t.Error("a store was made all the same")
	}
}

func TestWhatIsNoSoundBackupIsRefusedAndTheStoreIsLeftAlone(t *testing.T) {
	g := startGateway(t, plainSite)
	for range 50 {
		g.issue(nil)
	}
	g.must("backup", g.in("backup"))
	whole, err := os.ReadFile(g.in("backup"))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	at := bytes.Index(flipped, []byte("alice")) // of a record
	flipped[at] ^= 1
	for i := bytes.LastIndex(whole, []byte("alice")); i != at; i = bytes.LastIndex(whole[:i], []byte("alice")) {
		flipped[i] ^= 1 // some are in free pages
	}
	// In use: the server holds it.
	g.fails(1, "in use by another process", "restore", g.in("backup"), "--to", g.store(), "--replace")
	g.fails(1, "check without a file", "check", g.store())
	g.fails(1, "in use by another process", "compact", g.store())
	g.fails(1, "is there already", "backup", g.in("backup"))
	g.fails(1, "no such file or directory", "backup", g.in("nowhere/backup"))
	g.stop()
	before, err := os.ReadFile(g.store())
	if err != nil {
		t.Fatal(err)
	}
	files, _ := os.ReadDir(filepath.Dir(g.store()))
	for name, test := range map[string]struct {
		content   []byte
		says      string
		checkCode int
		revokedBy string
	}{
		"cut":     {whole[:len(whole)/2], "cut off", 4, "is neither a log"},
		"empty":   {nil, "no meta page", 4, "is neither a log"},
		"picture": {append([]byte("\x89PNG\r\n\x1a\n\x00"), make([]byte, 99999)...), "no meta page", 4, "is neither a log"},
		"flipped": {flipped, "does not match its checksum", 4, ""},
		"text":    {[]byte("hello\n"), "no meta page", 4, "is it another log?"},
	} {
		path := g.in(name)
		if err := os.WriteFile(path, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		g.fails(1, test.says, "restore", path, "--to", g.store(), "--replace")
		if test.revokedBy != "" {
			g.fails(1, test.revokedBy, "restore", g.in("backup"), "--to", g.store(), "--replace", "--revoked-since", path)
		}
		g.fails(1, test.says, "compact", path)
		g.fails(test.checkCode, "not sound", "check", path)
	}
	g.fails(1, "is there already", "restore", g.in("backup"), "--to", g.store())
	g.fails(1, "a log of the server or its old store", "restore", g.in("backup"), "--to", g.store(), "--replace", "--revoked-since", "2026-01-01T00:00:00Z")
	if after, err := os.ReadFile(g.store()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the store has changed: %v", err)
	}
	if now, _ := os.ReadDir(filepath.Dir(g.store())); len(now) != len(files) {
		t.Errorf("files were left behind: %v", now)
	}
}

func TestABackupThatBreaksOffLeavesNothingBehind(t *testing.T) {
	g := startGateway(t, plainSite)
	dir := g.in("backups")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, handler := range map[string]http.HandlerFunc{
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", "1000000")
			w.Write(make([]byte, 500000))
			panic(http.ErrAbortHandler)
		},
		"not sound": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", "100000")
			w.Write(make([]byte, 100000))
		},
		"older": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
	} {
		server := httptest.NewServer(handler)
		g.fails(1, "", "backup", filepath.Join(dir, "backup"), "--address", server.Listener.Addr().String())
		server.Close()
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%s: %v, %v", name, files, err)
		}
	}
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"keys":1000}`) }))
	defer half.Close()
	g.fails(1, "the check broke off", "check", "--address", half.Listener.Addr().String())
	cmd := g.command("api-keys", "backup", "-")
	stdout, _, code := g.run(cmd)
	if err := os.WriteFile(filepath.Join(dir, "piped"), []byte(stdout), 0o600); err != nil || code != 0 {
		t.Fatal(err, code)
	}
	g.must("check", filepath.Join(dir, "piped"))
}

func TestCompactKeepsEveryKey(t *testing.T) {
	g := startGateway(t, plainSite)
	var keys []map[string]string
	for range 100 {
		keys = append(keys, g.issue(nil))
	}
	g.stop()
	result, _ := g.must("compact", g.store())
	if result["keys"].(float64) != 100 || result["bytes"].(float64) > result["bytesBefore"].(float64) {
		t.Errorf("%v", result)
	}
	if info, err := os.Stat(g.store()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	g.start()
	for _, key := range keys {
		g.requireStatus(200, "GET", "/", key["key"])
	}
}

func TestExitCodesTellWhatHappened(t *testing.T) {
	g := startGateway(t, plainSite)
	key := g.issue(nil)
	bad := g.in("bad")
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		code int
		args []string
	}{
		{0, []string{"get", key["id"]}},
		{0, []string{"check"}},
		{0, []string{"scanner-rule", "--format", "github"}},
		{1, []string{"get", key["id"], "--address", "localhost:1"}},
		{1, []string{"get"}},
		{1, []string{"get", "--no-such-flag"}},
		{1, []string{"nothing"}},
		{1, []string{"check", g.in("absent")}},
		{1, []string{"create", "--organization", "acme", "--user", "alice", "--name", ""}},
		{4, []string{"check", bad}},
		{4, []string{"check", bad, "--json"}},
		{5, []string{"get", "key_0000000000000000000000"}},
		{5, []string{"revoke", "key_0000000000000000000000"}},
		{5, []string{"rotate", "key_0000000000000000000000"}},
		{5, []string{"update", "key_0000000000000000000000", "--name", "x"}},
	} {
		_, stderr, code := g.run(g.command(append([]string{"api-keys"}, test.args...)...))
		if code != test.code || (code != 0) != strings.HasPrefix(stderr, "Error: ") {
			t.Errorf("%q: exit code %d, want %d: %s", test.args, code, test.code, stderr)
		}
	}
	cmd := g.command("api-keys", "verify")
	cmd.Stdin = strings.NewReader("ak_nothing")
	if _, stderr, code := g.run(cmd); code != 5 {
		t.Errorf("verify: exit code %d: %s", code, stderr)
	}
}
