//go:build clients

package main_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// demo prepares "make demo" in a folder, on ports of its own.
func demo(t *testing.T, dir string, env ...string) *exec.Cmd {
	cmd := exec.Command("make", "--no-print-directory", "demo")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEMO_PORT="+freePort(t), "DEMO_API_PORT="+freePort(t), "DEMO_ADMIN_PORT="+freePort(t))
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// requireDemo checks what the demo promises to show.
func requireDemo(t *testing.T, output string) {
	t.Helper()
	for _, part := range []string{
		`{"ready":true}`,
		`"reason":"no_credential"`,
		`"createdBy": "operator"`,
		`"name":"reports"`,
		"the API saw GET /hello by key key_",
		"Authorization: []",
		`"reason":"insufficient_scope"`,
		`"lastUsedUserAgent":"curl`,
		"LAST USED",
		"caddy_api_keys_key_requests_total",
		`"revokedAt"`,
		`"reason":"invalid_token"`,
	} {
		if !strings.Contains(output, part) {
			t.Errorf("the demo does not show %s", part)
		}
	}
}

func TestClientDemoEndsByItself(t *testing.T) {
	output, err := demo(t, root(t), "DEMO_ONCE=1").CombinedOutput()
	if err != nil || !strings.Contains(string(output), "The demo is complete.") {
		t.Fatalf("%v\n%s", err, output)
	}
	requireDemo(t, string(output))
}

func TestClientLinesOfTheDemoCanBeRepeated(t *testing.T) {
	cmd := demo(t, root(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches all of a group
	output := new(lockedBuffer)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	hasExited := func() bool {
		select {
		case <-exited:
			return true
		default:
			return false
		}
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		waitFor(t, "the demo to stop", hasExited)
	})
	waitFor(t, "the end of the walk", func() bool {
		return strings.Contains(output.String(), "\n  curl ") || hasExited()
	})
	text := output.String()
	requireDemo(t, text)

	repeated := 0
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		repeated++
		// In another folder and without what the demo has set.
		again := exec.Command("bash", "-c", "set -o pipefail; "+command)
		again.Dir = t.TempDir()
		answer, err := again.Output()
		if err != nil || len(answer) == 0 {
			t.Errorf("$ %s: %v, %q", command, err, answer)
		}
	}
	if repeated < 10 {
		t.Errorf("the demo shows %d commands", repeated)
	}
	_, hint, _ := strings.Cut(text, "stop it with Ctrl-C.\n")
	answer, err := exec.Command("bash", "-c", hint).Output()
	if err != nil || !strings.Contains(string(answer), "the API saw GET /anything") {
		t.Errorf("the last hint: %v, %q", err, answer)
	}
}

func TestClientFreshCloneRunsTheDemoAndBuilds(t *testing.T) {
	dir := t.TempDir()
	// Root may be another user than the owner of the repository.
	trust := filepath.Join(dir, "gitconfig")
	if err := os.WriteFile(trust, []byte("[safe]\n\tdirectory = *\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(dir, "clone")
	git := exec.Command("git", "clone", "-q", root(t), clone)
	git.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+trust)
	if output, err := git.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}

	output, err := demo(t, clone, "DEMO_ONCE=1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	requireDemo(t, string(output))

	built := filepath.Join(dir, "caddy")
	build := exec.Command("go", "run", "./cmd/build", "-output", built)
	build.Dir = clone
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	list, err := exec.Command(built, "list-modules").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{
		"admin.api.api_keys",
		"api_keys",
		"api_keys.storage.bolt",
		"http.authentication.providers.api_key",
		"http.handlers.api_key_auth",
		"http.handlers.api_key_management",
	} {
		if !bytes.Contains(list, []byte("\n"+module+"\n")) {
			t.Errorf("list-modules lacks %s", module)
		}
	}
	git = exec.Command("git", "-C", clone, "status", "--porcelain")
	git.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+trust)
	if left, err := git.Output(); err != nil || len(left) > 0 {
		t.Errorf("what is built is not ignored by git: %v\n%s", err, left)
	}
}

// lockedBuffer can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
