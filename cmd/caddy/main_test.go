// Package main_test tests the built binary from outside, as its users meet it.
package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"
)

// The program under test. Servers have the race detector if the tests have it;
// commands are over too soon to need it.
var binary, server string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "caddy")
	server = binary
	builds := [][]string{{"build", "-o", binary, "."}}
	if raceDetector() {
		server = filepath.Join(dir, "caddy-race")
		builds = append(builds, []string{"build", "-race", "-o", server, "."})
	}
	for _, args := range builds {
		if output, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %q: %v\n%s", args, err, output)
			return 1
		}
	}
	return m.Run()
}

// raceDetector reports whether these tests were built with it.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// patience is how long anything may take. It is far more than it should take: a
// test that waits for it has failed, however busy the machine is.
const patience = time.Minute

// waitFor waits until a condition holds.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
