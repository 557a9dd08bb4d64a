// Package proc reads what the system knows of processes and files. It works on
// Linux; elsewhere every call fails with [errors.ErrUnsupported].
package proc

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Memory is what a process takes of the memory, in bytes.
type Memory struct {
	Resident uint64
	// Anonymous leaves out pages of files, which the system takes back when
	// it needs them.
	Anonymous uint64
}

// parseMemory reads the format of /proc/PID/smaps_rollup.
func parseMemory(r io.Reader) (Memory, error) {
	values, err := parseFields(r)
	if err != nil {
		return Memory{}, err
	}
	resident, ok := values["Rss"]
	anonymous, both := values["Anonymous"]
	if !ok || !both {
		return Memory{}, fmt.Errorf("the lines Rss and Anonymous are missing")
	}
	return Memory{Resident: resident << 10, Anonymous: anonymous << 10}, nil
}

// parseFields reads lines of a name, a colon and a number, and leaves out others.
func parseFields(r io.Reader) (map[string]uint64, error) {
	values := make(map[string]uint64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		words := strings.Fields(rest)
		if !ok || len(words) == 0 {
			continue
		}
		if n, err := strconv.ParseUint(words[0], 10, 64); err == nil {
			values[name] = n
		}
	}
	return values, lines.Err()
}
