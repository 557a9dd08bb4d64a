package boltstore

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// lockTimeout is how long another process may take to let go of the file. Caddy
// does nothing else while it opens a store.
const lockTimeout = 3 * time.Second

// database is the file as bbolt has it open. The file stands beside bbolt's
// handle because bbolt panics on damage, and where it does so holding its locks,
// only the file can be rescued from it.
type database struct {
	bolt *bolt.DB
	file *os.File
	last int // the transaction that was committed last; the committer's to use
}

var (
	errCut = errors.New("the file was cut off: restore it from a backup")

	// errLost marks an error after which bbolt's handle is of no use: it must
	// not even be closed, so its memory mapping remains.
	errLost = errors.New("lost the database")
)

// damage describes what bbolt, or reading the memory behind it, panicked with.
func damage(panicked any) error {
	return fmt.Errorf("the file is damaged, or its disk cannot be read (%v): restore it from a backup", panicked)
}

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

// openDatabase opens the file with the flags of package os, which say whether it
// is written and whether it is a new one.
func openDatabase(path string, flags int) (db *database, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db = new(database)
	options := bolt.Options{
		Timeout:      lockTimeout,
		ReadOnly:     flags&os.O_RDWR == 0,
		FreelistType: bolt.FreelistMapType,
		NoStatistics: true,
		// bbolt's own flags would bring a file into being that was deleted
		// a moment ago.
		OpenFile: func(path string, _ int, mode os.FileMode) (_ *os.File, err error) {
			db.file, err = os.OpenFile(path, flags, mode)
			return db.file, err
		},
	}
	through := false
	err = guard(func() (err error) {
		db.bolt, err = bolt.Open(path, 0o600, &options)
		through = true
		return err
	})
	if !through {
		db.letGo()
		err = fmt.Errorf("%w: %w", errLost, err)
	}
	if err != nil {
		return nil, err
	}
	tx, err := db.begin(false)
	if err != nil {
		return nil, errors.Join(err, db.closeUnlessLost(err))
	}
	defer tx.Rollback()
	db.last = tx.ID()
	return db, nil
}

// begin starts a transaction. The first thing bbolt does there is to read the
// meta pages, and should they be gone, it panics and leaves its locks locked: the
// next call, even Close, would wait for ever. So the size of the file is looked
// at first; and what still panics is not touched again.
func (db *database) begin(writable bool) (*bolt.Tx, error) {
	size, err := db.size()
	if err != nil {
		return nil, err
	}
	const metaPages = 2 * 4096 // at least: no system has smaller pages
	if size < metaPages {
		return nil, errCut
	}
	var tx *bolt.Tx
	through := false
	err = guard(func() (err error) {
		tx, err = db.bolt.Begin(writable)
		through = true
		return err
	})
	if !through {
		db.letGo()
		err = fmt.Errorf("%w: %w", errLost, err)
	}
	if err != nil {
		return nil, err
	}
	// A page beyond the end of the file need not fault. It may as well read
	// as zeros.
	if tx.Size() > size {
		if size, err = db.size(); err != nil || tx.Size() > size {
			_ = tx.Rollback()
			return nil, errors.Join(errCut, err)
		}
	}
	return tx, nil
}

func (db *database) size() (int64, error) {
	info, err := db.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// letGo closes the file of a lost database. Without unlocking it first, the
// mapping that remains would keep the lock.
func (db *database) letGo() {
	if db.file != nil {
		unlock(db.file)
		_ = db.file.Close()
	}
}
