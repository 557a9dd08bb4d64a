package caddymodule

import (
	"errors"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// The exit codes of the commands, apart from 0: it was done. Caddy's own commands
// end with 1 to 3.
const (
	exitFailed   = 1 // it was not done, for the reason that standard error has
	exitNotSound = 4 // check has found faults
	exitNotFound = 5 // there is no such key
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

type run func(*cobra.Command, []string) error

// withExitCode makes a command end with the code of its error. Caddy knows such
// an error by a type of its own.
func withExitCode(do run) run {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		exit, ok := errors.AsType[*exitError](err)
		if !ok {
			return err
		}
		cmd.SilenceErrors = true
		cmd.PrintErrln(cmd.ErrPrefix(), err)
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return exit.code, nil })(cmd, args)
	}
}
