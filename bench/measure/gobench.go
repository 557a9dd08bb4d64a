package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

// goBench is a benchmark of "go test -bench", with each time it ran.
type goBench struct {
	Name  string    // without "Benchmark", with the number of processors
	NsOp  []float64 // nanoseconds
	Bytes []float64 `json:",omitempty"`
	Alloc []float64 `json:",omitempty"`
}

// benchCount is how often each benchmark runs.
const benchCount = 5

// goBenches runs the Go benchmarks in a folder of the module, or in a nested one.
func (l *lab) goBenches(ctx context.Context, folder, cpus string) ([]goBench, error) {
	l.progress("Go benchmarks of %s", folder)
	root, err := child.Root(ctx)
	if err != nil {
		return nil, err
	}
	cmd := child.Command{Args: []string{"go", "test", "-run", "^$", "-bench", ".", "-benchmem",
		"-count", strconv.Itoa(min(benchCount, l.rounds)), "-cpu", cpus, "."}}.Exec(ctx)
	cmd.Dir, cmd.Stderr = root+"/"+folder, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running the benchmarks of %s: %w: %s", folder, err, out)
	}
	all, err := parseGoBench(out)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s has no benchmarks", folder)
	}
	return all, err
}

var benchLine = regexp.MustCompile(`^Benchmark(\S+)\s+\d+\s+(.*)$`)

// parseGoBench reads what "go test -bench" prints. The series of a benchmark that
// ran several times are kept together.
func parseGoBench(out []byte) (all []goBench, err error) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	at := make(map[string]int)
	for lines.Scan() {
		match := benchLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		i, ok := at[match[1]]
		if !ok {
			i = len(all)
			at[match[1]] = i
			all = append(all, goBench{Name: match[1]})
		}
		values := strings.Fields(match[2])
		for ; len(values) >= 2; values = values[2:] {
			n, err := strconv.ParseFloat(values[0], 64)
			if err != nil {
				return nil, fmt.Errorf("reading the benchmark %s: %w", match[1], err)
			}
			switch values[1] {
			case "ns/op":
				all[i].NsOp = append(all[i].NsOp, n)
			case "B/op":
				all[i].Bytes = append(all[i].Bytes, n)
			case "allocs/op":
				all[i].Alloc = append(all[i].Alloc, n)
			}
		}
	}
	return all, lines.Err()
}

func find(all []goBench, name string) (goBench, bool) {
	for _, b := range all {
		if b.Name == name {
			return b, true
		}
	}
	return goBench{}, false
}
