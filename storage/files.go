package storage

import (
	"context"
	"errors"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// FileDriver is a Driver that keeps a store in one file. Commands work with it on
// files that no server uses.
type FileDriver interface {
	Driver

	// Examine opens the store in a file for reading only, when the file is
	// sound as far as the driver can tell. What is wrong with it is handed to
	// fault; when that is called, there is no store and no error.
	Examine(path string, fault func(problem string)) (apikey.Store, error)

	// Rewrite makes the store in the file from anew in the file to, without
	// what it does not need, and readable for the owner of to alone. It calls
	// change with the new store before that takes its place, at once and
	// whole, or, after an error, not at all, unless the error says that it is
	// in its place and may not stay there. The two may be one file.
	Rewrite(ctx context.Context, from, to string, how Rewriting, change func(apikey.Store) error) error
}

// Rewriting says what becomes of a file that is in the place of a new one.
type Rewriting struct {
	// Replace allows that there is one. Else ErrExists is returned.
	Replace bool
	// Aside is the name that it gets then; if empty, it is gone.
	Aside string
}

var (
	// ErrInUse says that another process uses the file.
	ErrInUse = errors.New("another process uses it")
	// ErrExists says that there is a file where a new one should be.
	ErrExists = errors.New("there is a file of that name")
)
