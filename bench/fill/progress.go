package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress draws a bar on a terminal, and nothing elsewhere.
type progress struct {
	out         io.Writer // nil: nowhere
	done, total int
	start, last time.Time
}

func newProgress(f *os.File, total int) *progress {
	p := &progress{total: total, start: time.Now()}
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		p.out = f
	}
	return p
}

func (p *progress) add(n int) {
	p.done += n
	if now := time.Now(); p.out != nil && (now.Sub(p.last) > 200*time.Millisecond || p.done == p.total) {
		p.last = now
		fmt.Fprint(p.out, "\r"+p.line(now.Sub(p.start)))
	}
}

func (p *progress) line(took time.Duration) string {
	const width = 40
	full := width * p.done / p.total
	rate := float64(p.done) / max(took.Seconds(), 1e-3)
	left := time.Duration(float64(p.total-p.done) / max(rate, 1) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("[%s%s] %3d %%  %.0f keys/s, %v left \x1b[K",
		strings.Repeat("#", full), strings.Repeat(".", width-full), 100*p.done/p.total, rate, left)
}

// end goes on to the next line.
func (p *progress) end() {
	if p.out != nil {
		fmt.Fprintln(p.out)
	}
}
