package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

// lockTimeout is how long another process may take to let go of the file. Caddy
// does nothing else while it opens a store.
const lockTimeout = 3 * time.Second

// database is the file as bbolt has it open. The file stands beside bbolt's
// handle because bbolt panics on damage, and where it does so holding its locks,
// only the file can be rescued from it.
type database struct {
	bolt     *bolt.DB
	file     *os.File
	pageSize int64
	idle     idleReaders
	lost     atomic.Bool
	version  version // that was committed last; only the update that leads uses it
}

var (
	errLocked = fmt.Errorf(`%w (another Caddy?): stop that one, or name a file of its own for each; "caddy validate" and "caddy reload" work beside a running server`, storage.ErrInUse)
	errCut    = errors.New("the file was cut off: restore it from a backup")
	errDamage = errors.New("the file is damaged, or its disk cannot be read")

	// errLost marks an error after which bbolt's handle is of no use. It must
	// not even be closed, so the memory that it has mapped stays mapped.
	errLost = errors.New("gave up")
)

// guard returns the error of fn, or the damage that fn panicked with. A fault of
// mapped memory is a panic only where debug.SetPanicOnFault is on.
func guard(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damage(p)
		}
	}()
	return fn()
}

func damage(panicked any) error {
	return fmt.Errorf("%w (%v): restore it from a backup", errDamage, panicked)
}

// openDatabase opens the file with flags of package os, which say whether it is
// written and whether it is a new one.
func openDatabase(path string, flags int) (*database, error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db := new(database)
	err := db.attempt(func() (err error) {
		db.bolt, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:      lockTimeout,
			ReadOnly:     flags&os.O_RDWR == 0,
			FreelistType: bolt.FreelistMapType,
			NoStatistics: true,
			// With its own flags bbolt would create a file that has just
			// been deleted.
			OpenFile: func(path string, _ int, mode os.FileMode) (_ *os.File, err error) {
				db.file, err = os.OpenFile(path, flags, mode)
				return db.file, err
			},
		})
		return err
	})
	var system syscall.Errno
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, errLocked
	case errors.Is(err, errLost), errors.As(err, &system):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("it is not a key store, or it is damaged (%w): name another file, or restore a backup", err)
	}
	db.pageSize = int64(db.bolt.Info().PageSize)
	tx, err := db.begin(false)
	if err == nil {
		err = guard(func() error { db.version = versionOf(tx); return nil })
		_ = tx.Rollback()
	}
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	db.idle.keep(db.version.tx)
	return db, nil
}

// begin starts a transaction. bbolt reads the meta pages first, with its locks
// held, and panics when they are gone; whatever is called next, Close and a commit
// that is under way too, would wait for ever. So they are looked at before, and a
// database that panics nevertheless is never touched again.
func (db *database) begin(writable bool) (tx *bolt.Tx, err error) {
	if err := db.whole(); err != nil {
		db.idle.end() // what they see is gone, though they may have a copy of it
		return nil, err
	}
	if writable && db.bolt.IsReadOnly() {
		return nil, berrors.ErrDatabaseReadOnly
	}
	if writable {
		db.idle.end()
	}
	if err := db.attempt(func() (err error) {
		tx, err = db.bolt.Begin(writable)
		return err
	}); err != nil {
		return nil, err
	}
	if err := db.holds(tx); err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	return tx, nil
}

// whole makes sure that there is a meta page to begin with.
func (db *database) whole() error {
	size, err := db.size()
	if err != nil {
		return err
	}
	if size < 2*db.pageSize {
		return errCut
	}
	// Twice, because a commit may just be writing the one.
	for _, at := range []int64{0, db.pageSize, 0, db.pageSize} {
		if _, whole := readMetaAt(db.file, at); whole {
			return nil
		}
	}
	if _, err := db.size(); err != nil { // it was closed meanwhile
		return err
	}
	return db.giveUp(damage("no meta page is whole"))
}

// holds makes sure that the file has all that a transaction sees. If a part is gone
// that need not fault: it may as well read as zeros.
func (db *database) holds(tx *bolt.Tx) error {
	size, err := db.size()
	if err == nil && tx.Size() > size {
		err = errCut
	}
	return err
}

// size returns the size of the file. bbolt has no use for the offset, and asking
// for the end costs half of what Stat does.
func (db *database) size() (int64, error) { return db.file.Seek(0, io.SeekEnd) }

// attempt runs a part of bbolt that keeps its locks when it panics.
func (db *database) attempt(fn func() error) error {
	err := guard(fn)
	if errors.Is(err, errDamage) {
		return db.giveUp(err)
	}
	return err
}

// giveUp leaves a database alone that is of no use any more.
func (db *database) giveUp(why error) error {
	if !db.lost.Swap(true) && db.file != nil {
		// The mapping stays, and would keep the lock of the file.
		unlock(db.file)
		_ = db.file.Close()
	}
	return fmt.Errorf("%w: %w", errLost, why)
}

// close waits for transactions that run and closes the database.
func (db *database) close() error {
	if db.lost.Load() {
		return nil
	}
	db.idle.end()
	return db.bolt.Close()
}
