package caddymodule

import (
	"fmt"
	"os"

	"golang.org/x/term"
)

// progress tells on a terminal how far a long command is. In a pipe it is silent.
type progress struct {
	doing   string
	visible bool
}

func newProgress(doing string) progress {
	return progress{doing, term.IsTerminal(int(os.Stderr.Fd()))}
}

func (p progress) at(lines int) {
	if p.visible {
		fmt.Fprintf(os.Stderr, "\r%s: %d lines", p.doing, lines)
	}
}

func (p progress) end() {
	if p.visible {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}
