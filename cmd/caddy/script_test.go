package main_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// A script is commands with what they print:
//
//	# a remark
//	$ caddy api-keys list --organization acme
//	ID NAME SCOPE
//	key_* first read
//
//	$ caddy api-keys get nobody
//	! Error: not found: *
//
// The command is run by sh. The lines below it are its whole standard output;
// those after "!" are its whole standard error, and say that it fails. A * stands
// for any text, and a space for any number of them.
type step struct {
	command        string
	stdout, stderr []string
}

func readScript(t *testing.T, file string) (steps []step) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, step{command: command})
		} else if line != "" && line[0] != '#' {
			if len(steps) == 0 {
				t.Fatalf("%s begins without a command", file)
			}
			last := &steps[len(steps)-1]
			if wanted, ok := strings.CutPrefix(line, "! "); ok {
				last.stderr = append(last.stderr, wanted)
			} else {
				last.stdout = append(last.stdout, line)
			}
		}
	}
	return steps
}

// prelude gives scripts "field NAME <FILE": a string in the JSON of a file.
const prelude = `field() { sed -n "s/^ *\"$1\": \"\([^\"]*\)\",*$/\1/p"; }
`

// runScript runs a script before a gateway.
func (g *gateway) runScript(file string) {
	g.t.Helper()
	if err := os.MkdirAll(g.scripts(), 0o700); err != nil {
		g.t.Fatal(err)
	}
	for _, s := range readScript(g.t, file) {
		stdout, stderr, code := g.shell(prelude + s.command)
		problem := ""
		switch {
		case !matches(stdout, s.stdout):
			problem = "another standard output"
		case !matches(stderr, s.stderr):
			problem = "another standard error"
		case (code != 0) != (len(s.stderr) > 0):
			problem = "another exit code"
		case !printable(stdout) || !printable(stderr):
			problem = "control characters"
		default:
			continue
		}
		g.t.Fatalf("%s: %s\n$ %s\n%s! %s\nexit code %d\nwanted:\n%s\n! %s", file, problem, s.command,
			stdout, stderr, code, strings.Join(s.stdout, "\n"), strings.Join(s.stderr, "\n! "))
	}
}

// shell runs a line of sh in the surroundings of the gateway. Tokens that it
// prints must be nowhere else.
func (g *gateway) shell(line string) (stdout, stderr string, code int) {
	g.t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = g.scripts(), g.env
	return g.run(cmd)
}

// run runs a command to its end.
func (g *gateway) run(cmd *exec.Cmd) (stdout, stderr string, code int) {
	g.t.Helper()
	var out, bad bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &bad
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			g.t.Fatalf("%s: %v", cmd, err)
		}
	}
	for _, token := range aToken.FindAllString(out.String(), -1) {
		g.keepSecret(token)
	}
	return out.String(), bad.String(), cmd.ProcessState.ExitCode()
}

var spaces = regexp.MustCompile(` +`)

// matches compares the lines of a text with patterns.
func matches(text string, patterns []string) bool {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	if len(lines) != len(patterns) {
		return false
	}
	for i, pattern := range patterns {
		pattern = regexp.QuoteMeta(spaces.ReplaceAllString(pattern, " "))
		whole := regexp.MustCompile("^" + strings.ReplaceAll(pattern, `\*`, ".*") + "$")
		if !whole.MatchString(spaces.ReplaceAllString(strings.TrimSpace(lines[i]), " ")) {
			return false
		}
	}
	return true
}

// printable reports whether a text can do nothing to a terminal.
func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r != '\n' && !unicode.IsPrint(r)
	})
}
