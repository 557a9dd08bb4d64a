package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestThePrintedLineRepeatsTheCommandInAShell(t *testing.T) {
	args := []string{"plain-1.2/x@v=y:z", "two words", "it's", `"$HOME" \ *`, "", "~"}
	c := command{
		env:  []string{"SETTING=-ldflags '-s -w'"},
		argv: append([]string{"sh", "-c", `printf '%s\n' "$SETTING" "$@"`, "sh"}, args...),
	}
	out, err := exec.Command("sh", "-c", c.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "-ldflags '-s -w'\n" + strings.Join(args, "\n") + "\n"
	if string(out) != want {
		t.Errorf("%s\n got %q\nwant %q", c, out, want)
	}
}

func TestAFailedCommandIsAnError(t *testing.T) {
	err := command{argv: []string{"sh", "-c", "exit 3"}}.run()
	if err == nil || err.Error() != "running sh: exit status 3" {
		t.Errorf("got %v", err)
	}
}
