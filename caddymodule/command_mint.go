package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

// mint makes a key and prints it with its token. Whoever asked must see it, or
// there must be no such key: an interruption waits until it is shown, and only a
// second one ends this. replaced is the id of the key that it takes the place of, if
// it does.
func (o *operator) mint(uri string, body any, replaced string) error {
	if stdoutWasClosed() {
		return errors.New("standard output is closed: nobody could see the token")
	}
	signal.Ignore(syscall.SIGPIPE)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-interrupted
		signal.Reset(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	}()
	data, err := o.call(http.MethodPost, uri, body)
	if err != nil {
		return err
	}
	if err := o.printKey(data); err != nil {
		return o.undo(data, replaced, err)
	}
	return nil
}

// stdoutWasClosed reports whether the program was started without a standard
// output. Go opens the null device in its place, which unlike that of
// "> /dev/null" can be read.
func stdoutWasClosed() bool {
	out, err := os.Stdout.Stat()
	null, nullErr := os.Stat(os.DevNull)
	if err != nil || nullErr != nil || !os.SameFile(out, null) {
		return false
	}
	_, err = os.Stdout.Read(make([]byte, 1))
	return err == io.EOF
}

// undo revokes a key that could not be printed, and says so. The one that it has
// replaced keeps its end.
func (o *operator) undo(data json.RawMessage, replaced string, cause error) error {
	var key, old struct{ ID, ExpiresAt string }
	err := json.Unmarshal(data, &key)
	if err == nil {
		_, err = o.call(http.MethodDelete, keyPath(key.ID), nil)
	}
	if err != nil {
		return fmt.Errorf("printing the new key %s, which could not be revoked again (%v): %w", key.ID, err, cause)
	}
	err = fmt.Errorf("printing the new key, which is revoked again: %w", cause)
	if replaced == "" {
		return err
	}
	if data, failed := o.call(http.MethodGet, keyPath(replaced), nil); failed == nil {
		_ = json.Unmarshal(data, &old)
	}
	if old.ExpiresAt == "" {
		old.ExpiresAt = "the end of its grace"
	}
	return fmt.Errorf("%w; the old key still ends, at %s: make another in its place", err, old.ExpiresAt)
}
