package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

// examined is a file that is only read. Its lock keeps every writer away.
type examined struct {
	store *Store // for its reader; it is not open
	db    *database
}

// Examine opens the key store in the file at path for reading only, when all its
// pages are sound. What is wrong with them is handed to fault, and there is then
// neither a store nor an error. When another process uses the file, Examine gives
// up after 3 seconds.
func Examine(path string, fault func(problem string)) (apikey.Store, error) {
	path = canonical(path)
	e, err := examine(path, fault)
	if err != nil {
		return nil, fmt.Errorf("reading key store %s: %w", path, err)
	}
	if e == nil {
		return nil, nil
	}
	return e, nil
}

func examine(path string, fault func(problem string)) (*examined, error) {
	// Before bbolt sees the file: it may not come back from a damaged one.
	sound := true
	if err := examinePages(path, func(problem string) { sound = false; fault(problem) }); err != nil || !sound {
		return nil, err
	}
	db, err := openDatabase(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	tx, err := db.begin(false)
	if err == nil {
		err = guard(func() error {
			if err := identify(tx); err != nil {
				return err
			}
			return tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
				known := func(bucket []byte) bool { return bytes.Equal(bucket, name) }
				if !known(metaBucket) && !slices.ContainsFunc(buckets, known) {
					sound = false
					fault(fmt.Sprintf("there is a table %q, which this version does not know", name))
				}
				return nil
			})
		})
		_ = tx.Rollback()
	}
	if err != nil || !sound {
		return nil, errors.Join(err, db.close())
	}
	return &examined{&Store{path: path}, db}, nil
}

// examinePages checks the pages of a file while nobody writes to it.
func examinePages(path string, fault func(problem string)) error {
	if err := regular(path); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := lockShared(file); err != nil {
		return err
	}
	return checkPages(file, fault)
}

func regular(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("it is %s: name a file", kind(info.Mode()))
	}
	return err
}

// View implements [apikey.Store].
func (e *examined) View(ctx context.Context, fn func(apikey.Reader) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := e.db.begin(false)
	if err != nil {
		return e.store.failed("reading", apikey.ErrUnavailable, err)
	}
	defer tx.Rollback()
	defer e.store.recoverFault(&err)
	return fn(e.store.newReader(tx))
}

var errReadOnly = errors.New("it is open for reading only")

// Update implements [apikey.Store]. It always fails.
func (e *examined) Update(context.Context, func(apikey.Tx) error) error {
	return e.store.failed("writing", apikey.ErrUnavailable, errReadOnly)
}

// Close implements [apikey.Store].
func (e *examined) Close() error { return e.db.close() }

// Rewrite makes the key store in the file from anew in the file to, without free
// pages. change is called with the new store before that takes its place, at once
// and whole, or, after an error, not at all, unless that says that it did. When
// another process uses either file, Rewrite gives up after 3 seconds.
func Rewrite(ctx context.Context, from, to string, how storage.Rewriting, change func(apikey.Store) error) error {
	from, to = canonical(from), canonical(to)
	if err := rewrite(ctx, from, to, how, change); err != nil {
		return fmt.Errorf("writing key store %s: %w", to, err)
	}
	return nil
}

func rewrite(ctx context.Context, from, to string, how storage.Rewriting, change func(apikey.Store) error) error {
	// Held to the end, so that no server begins to use it meanwhile. A damaged
	// one cannot be held, nor be used.
	before, err := os.Lstat(to)
	switch {
	case err == nil && !how.Replace:
		return storage.ErrExists
	case err == nil:
		if err := regular(to); err != nil {
			return err
		}
		held, err := openDatabase(to, os.O_RDONLY)
		if errors.Is(err, storage.ErrInUse) {
			return err
		}
		if err == nil {
			defer held.close()
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}

	var problems []string
	old, err := examine(from, func(problem string) { problems = append(problems, problem) })
	if err != nil {
		return fmt.Errorf("from %s: %w", from, err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("from %s: %w: %s", from, errDamage, problems[0])
	}
	defer old.Close()

	// Unlike the one of create, its name is nobody else's.
	reserved, err := os.CreateTemp(filepath.Dir(to), filepath.Base(to)+".new-*")
	if err != nil {
		return err
	}
	fresh := reserved.Name()
	defer os.Remove(fresh)
	if err := reserved.Close(); err != nil {
		return err
	}
	if err := compact(ctx, old, fresh); err != nil {
		return err
	}
	if change != nil {
		s, err := Open(fresh)
		if err != nil {
			return err
		}
		if err := errors.Join(change(s), s.Close()); err != nil {
			return err
		}
	}
	give(fresh, to, before)
	return putInPlace(fresh, to, how, syncDirectory)
}

// compactBytes is how much one transaction of a compaction writes.
const compactBytes = 16 << 20

func compact(ctx context.Context, old *examined, path string) (err error) {
	db, err := openDatabase(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	db.bolt.NoSync = true
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := guard(func() error {
		if err := bolt.Compact(db.bolt, old.db.bolt, compactBytes); err != nil {
			return err
		}
		return db.bolt.Update(func(tx *bolt.Tx) error { return sign(tx, newSignature()) })
	}); err != nil {
		return err
	}
	return db.bolt.Sync()
}

// putInPlace gives a finished file its name. What was there is never missing. The
// directory is synced with sync.
func putInPlace(fresh, to string, how storage.Rewriting, sync func(*os.File) error) error {
	d, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer d.Close()
	lockDirectory(d) // a server may be about to create its file there
	_, err = os.Lstat(to)
	switch {
	case err == nil && !how.Replace:
		return storage.ErrExists
	case err == nil && how.Aside != "":
		if err := os.Link(to, how.Aside); err != nil {
			return fmt.Errorf("keeping the file that is there: %w", err)
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.Rename(fresh, to); err != nil {
		return err
	}
	if err := sync(d); err != nil {
		return fmt.Errorf("it is in its place, but a power cut may still undo that; write it again when the disk works: %w", err)
	}
	return nil
}

// syncDirectory makes the names in a directory durable, where the system can.
func syncDirectory(d *os.File) error {
	if err := d.Sync(); err != nil && runtime.GOOS != "windows" && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}
