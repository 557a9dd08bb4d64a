package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// bringsBack is said wherever a backup is made or used.
const bringsBack = "Restoring a backup brings back the keys that were revoked after it was made, and loses those that were issued. " +
	"Keep the audit log, or the old store: restore --revoked-since <file> revokes them again.\n"

func (o *operator) backup() *cobra.Command {
	return &cobra.Command{
		Use:   "backup <file>",
		Short: "Writes a consistent copy of the running server's key store",
		Long: `
Writes a consistent copy of the key store to a new file, which its owner alone can
read, while the server goes on. The copy is checked before it gets its name, and a
copy that breaks off leaves nothing behind. With - it goes to standard output, and
is not checked.

` + bringsBack,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			var err error
			if args[0] == "-" {
				err = o.backupToOutput(ctx)
			} else {
				err = o.backupToFile(ctx, args[0])
			}
			if err == nil {
				cmd.PrintErr(bringsBack)
			}
			return err
		},
	}
}

func (o *operator) backupToOutput(ctx context.Context) error {
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("a backup is not for a terminal: name a file, or send it into a pipe")
	}
	_, err := o.copyStore(ctx, o.out)
	return err
}

func (o *operator) backupToFile(ctx context.Context, name string) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s is there already: name another file, or remove it", name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	taken := time.Now().UTC().Truncate(time.Second)
	size, err := o.copyStore(ctx, file)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	found, err := o.checkFile(ctx, file.Name())
	if err == nil && !found.Sound {
		err = errors.New(found.Faults[0].String())
	}
	if err != nil {
		return fmt.Errorf("the copy is not sound, and was not kept; look at the store with check: %w", err)
	}
	if err := publish(file.Name(), name); err != nil {
		return err
	}
	return o.printObject(
		field{"file", name}, field{"takenAt", taken.Format(time.RFC3339)}, field{"bytes", size},
		field{"keys", found.Keys}, field{"revoked", found.Revoked},
	)
}

// copyStore copies the store of the server.
func (o *operator) copyStore(ctx context.Context, to io.Writer) (size int64, err error) {
	resp, err := o.stream(adminBase + "backup")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.ContentLength < 0 || resp.Header.Get("Content-Type") != "application/octet-stream" {
		return 0, errors.New("what answers at the admin endpoint is not a backup: is there an older version of this plugin?")
	}
	defer context.AfterFunc(ctx, func() { resp.Body.Close() })()
	show := newProgress("copying", fmt.Sprintf("of %d MiB", resp.ContentLength>>20))
	defer show.end()
	size, err = io.Copy(to, &counted{resp.Body, 0, show})
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		return size, fmt.Errorf("the copy broke off after %d of %d bytes; the log of the server may say why: %w", size, resp.ContentLength, err)
	}
	return size, nil
}

// counted shows how much of a body was read.
type counted struct {
	io.Reader
	n    int64
	show progress
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	before := c.n >> 20
	if c.n += int64(n); c.n>>20 != before {
		c.show.at(int(c.n >> 20))
	}
	return n, err
}

// publish gives a finished file its name, which nobody has, for good.
func publish(temporary, name string) error {
	err := os.Link(temporary, name)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s has come into being meanwhile: name another file", name)
	}
	if err != nil { // there are file systems without links
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = dir.Sync() // not every system can
	return nil
}
