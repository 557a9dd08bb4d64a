package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/proc"
)

// machine is where and with what was measured.
type machine struct {
	Processor, Kernel, Go, Caddy, Project string
	Cores                                 int
	MemoryGiB                             int
	Tools                                 []string
}

func (l *lab) machine(ctx context.Context) machine {
	m := machine{
		Cores: runtime.NumCPU(), Go: runtime.Version(), Processor: procField("/proc/cpuinfo", "model name"),
		Caddy: firstWord(output(ctx, l.stock, "version")), Project: output(ctx, "git", "describe", "--always", "--dirty"),
	}
	m.Kernel, _ = proc.Kernel()
	var kib int
	if _, err := fmt.Sscan(procField("/proc/meminfo", "MemTotal"), &kib); err == nil {
		m.MemoryGiB = kib >> 20
	}
	for _, tool := range [][]string{{"wrk", "-v"}, {"h2load", "--version"}, {"nginx", "-v"}, {"haproxy", "-v"}} {
		version, _, _ := strings.Cut(output(ctx, tool...), " [") // what wrk was built with, and by whom
		version, _, _ = strings.Cut(version, " - ")
		if version != "" {
			m.Tools = append(m.Tools, version)
		}
	}
	return m
}

// output returns the first line that a program prints, or nothing.
func output(ctx context.Context, args ...string) string {
	out, _ := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput() // wrk -v fails
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return strings.TrimSpace(string(line))
}

func firstWord(text string) string {
	word, _, _ := strings.Cut(text, " ")
	return word
}

// procField returns the first value of a name in a file of /proc.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
