// Package child starts other programs, keeps them on the processor cores that
// they are given, and ends them.
package child

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/proc"
)

// Command says what to start.
type Command struct {
	Args []string
	// Cores is a list as taskset takes it, such as "0" or "0,1"; empty: any.
	Cores string
	// Env is added to the environment.
	Env []string
	// Log is the path of a file for what the program prints.
	Log string
}

// Exec returns the command, ready to be run.
func (c Command) Exec(ctx context.Context) *exec.Cmd {
	args := c.Args
	if c.Cores != "" {
		args = append([]string{"taskset", "-c", c.Cores}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	return cmd
}

// Process is a program that runs.
type Process struct {
	cmd   *exec.Cmd
	name  string
	log   string
	ended chan struct{}
	err   error
}

// stopTimeout is how long a program may take to end when it is asked to.
const stopTimeout = 20 * time.Second

// Start starts a program. It is killed when ctx ends.
func Start(ctx context.Context, c Command) (*Process, error) {
	cmd := c.Exec(ctx)
	log, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Args[0], err)
	}
	p := &Process{cmd: cmd, name: filepath.Base(c.Args[0]), log: c.Log, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID returns the id of the process. taskset becomes the program that it starts.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CPU returns the processor time of the process and of those that it started.
func (p *Process) CPU() (sum time.Duration, err error) {
	for _, pid := range proc.Family(p.PID()) {
		spent, err := proc.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += spent
	}
	return sum, nil
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Stop asks the process to end and waits until it has.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTimeout):
		p.Kill()
		return fmt.Errorf("%s did not end within %v and was killed", p.name, stopTimeout)
	}
}

// Kill ends the process without asking, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// Await waits until ready says so, at the most for a while, and fails when the
// process ends before.
func (p *Process) Await(ready func() bool, atMost time.Duration) error {
	for deadline := time.Now().Add(atMost); ; {
		switch {
		case ready():
			return nil
		case !p.Running():
			return fmt.Errorf("%s ended (%v); its log is %s: %s", p.name, p.err, p.log, tail(p.log))
		case time.Now().After(deadline):
			return fmt.Errorf("%s was not ready within %v; its log is %s: %s", p.name, atMost, p.log, tail(p.log))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// tail returns the end of a log.
func tail(path string) string {
	const most = 600
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// Listens reports whether somebody accepts connections at an address.
func Listens(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

var addressesGiven sync.Map

// FreeAddress returns an address of this machine that nobody listens on, and none
// twice: what is asked for together is not yet in use, and where two servers of one
// gateway had the same, one would answer for both.
func FreeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			return "", err
		}
		if _, given := addressesGiven.LoadOrStore(address, true); !given {
			return address, nil
		}
	}
}
