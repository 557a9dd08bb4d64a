package caddymodule

import (
	"fmt"
	"os"

	"golang.org/x/term"
)

// progress tells on a terminal how far a long command is. In a pipe it is silent.
type progress struct {
	doing, unit string
	visible     bool
}

func newProgress(doing, unit string) progress {
	return progress{doing, unit, term.IsTerminal(int(os.Stderr.Fd()))}
}

func (p progress) at(n int) {
	if p.visible {
		fmt.Fprintf(os.Stderr, "\r%s: %d %s", p.doing, n, p.unit)
	}
}

func (p progress) end() {
	if p.visible {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}
