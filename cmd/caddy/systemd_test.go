//go:build clients

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestClientSystemdHasNothingAgainstTheService(t *testing.T) {
	// It looks whether the program is there.
	file := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	text := strings.ReplaceAll(readText(t, unitFile), "/usr/local/bin/caddy", binary)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// What it does not know it only tells.
	if output, err := exec.Command("systemd-analyze", "verify", file).CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, output)
	}
	output, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", file).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, output)
	}
	t.Log(lastLines(string(output), 1))
}
