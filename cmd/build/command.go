package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// command is a program to run: NAME=value settings on top of the environment,
// then the program and its arguments.
type command struct {
	env  []string
	argv []string
}

// run prints c and runs it on this process's own input and output.
func (c command) run() error {
	fmt.Fprintln(os.Stderr, "+", c)
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w", c.argv[0], err)
	}
	return nil
}

// String is the line that does the same in a POSIX shell.
func (c command) String() string {
	var words []string
	for _, setting := range c.env {
		name, value, _ := strings.Cut(setting, "=")
		words = append(words, name+"="+quote(value))
	}
	for _, arg := range c.argv {
		words = append(words, quote(arg))
	}
	return strings.Join(words, " ")
}

func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\n'\"\\$`!*?[]{}()<>|&;#~") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
