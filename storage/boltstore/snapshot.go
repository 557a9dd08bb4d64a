package boltstore

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

var _ apikey.Snapshotter = (*Store)(nil)

// writePatience is how long a write may take before a snapshot gives way to it.
// While a read transaction is open, bbolt cannot map a file that has outgrown its
// mapping: a revocation, and with it every lookup, would wait for whoever receives
// the snapshot.
const writePatience = 2 * time.Second

var errGaveWay = errors.New("a change of keys had to wait for the copy, which gave way: try again, and receive it faster")

// Snapshot implements [apikey.Snapshotter].
func (s *Store) Snapshot(ctx context.Context, start func(size int64) (io.Writer, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, tx, err := s.begin(false)
	if err != nil {
		return err
	}
	taken := false
	defer func() {
		if !taken { // start failed, or panicked
			_ = tx.Rollback()
		}
	}()
	w, err := start(tx.Size())
	if err != nil {
		return err
	}
	taken = true
	// Who reads from the transaction never waits for w, but at the pipe, where he
	// can be called off.
	out, in := io.Pipe()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		err := guard(func() error {
			_, err := tx.WriteTo(in)
			return err
		})
		_ = tx.Rollback()
		in.CloseWithError(err)
	}()
	watched := make(chan error, 1)
	go func() { watched <- s.waitedFor(ctx, copied, out) }()
	_, err = io.Copy(w, out)
	out.CloseWithError(err)
	<-copied
	if cause := <-watched; cause != nil {
		return cause
	}
	return err
}

// waitedFor breaks a copy off that others have to wait for, and says why.
func (s *Store) waitedFor(ctx context.Context, copied <-chan struct{}, out *io.PipeReader) error {
	tick := time.NewTicker(s.patience / 10)
	defer tick.Stop()
	for {
		var cause error
		select {
		case <-copied:
			return ctx.Err() // a small copy ends before this goroutine hears of its caller
		case <-ctx.Done():
			cause = ctx.Err()
		case <-s.closing:
			cause = s.failed("copying", apikey.ErrUnavailable, errClosed)
		case <-tick.C:
			if begun := s.writing.Load(); begun == nil || time.Since(*begun) < s.patience {
				continue
			}
			cause = errGaveWay
		}
		out.CloseWithError(cause)
		return cause
	}
}
