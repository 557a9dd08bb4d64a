package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

// crashTest is what bench/crash prints.
type crashTest struct {
	Cycles, Creates, Revokes           int
	Lost, Revived, FailedStarts, Wrong int
}

// raceTest is what bench/revokerace prints.
type raceTest struct {
	Rounds, Keys, Requests, Accepted, Wrong, AcceptedBefore, Misses int
}

// fault runs a program that tries to break a promise and prints a figure. It
// fails when a promise was broken, and then the figure says so.
func (l *lab) fault(ctx context.Context, folder string, figure any, flag string, times int) error {
	l.progress("running %s %s %d", folder, flag, times)
	program, err := child.Build(ctx, folder, l.dir)
	if err != nil {
		return err
	}
	cmd := child.Command{Args: []string{program, "-json", "-caddy", l.ours, "-dir", l.dir, flag, strconv.Itoa(times)}}.Exec(ctx)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || len(out) == 0) {
		return fmt.Errorf("running %s: %w", folder, err)
	}
	return json.Unmarshal(out, figure)
}
