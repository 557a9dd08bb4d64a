package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

var (
	errClosed    = errors.New("it is closed")
	errMoved     = errors.New("the file was moved, deleted or replaced while in use: put it back, or restart Caddy to use what is there now")
	errForeign   = fmt.Errorf("%w: another program has written to the file, or replaced it, while it was in use: restart Caddy to use what is there now", apikey.ErrReplaced)
	errAbandoned = fmt.Errorf("writing key store: %w: the update that it was to be committed with has panicked", apikey.ErrOutcomeUnknown)
)

// reopen closes a database in which a write has failed, and opens what has become
// of it.
func (s *Store) reopen(db *database, cause error) (*database, error) {
	s.log().Error("a write to the key store failed; opening it again", zap.String("path", s.path), zap.Error(cause))
	return s.replace(db)
}

func (s *Store) replace(db *database) (*database, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db.CompareAndSwap(db, nil) {
		_ = db.close()
	}
	if again := s.db.Load(); again != nil {
		return again, nil
	}
	return s.openAgain()
}

// openAgain opens the file after it was closed because of a fault. The caller
// holds mu.
func (s *Store) openAgain() (*database, error) {
	if s.closed {
		return nil, s.failed("using", apikey.ErrUnavailable, errClosed)
	}
	if time.Now().Before(s.retry) {
		return nil, s.failure
	}
	err := s.unmoved()
	if err == nil {
		_, err = inspect(s.path)
	}
	var db *database
	if err == nil {
		db, err = s.openOurs()
	}
	if err != nil {
		s.retry = time.Now().Add(time.Second)
		if errors.Is(err, errLost) || errors.Is(err, errForeign) {
			// The one leaks address space each time, the other does not pass.
			s.retry = time.Now().Add(time.Hour)
		}
		s.failure = s.failed("reopening", apikey.ErrUnavailable, err)
		return nil, s.failure
	}
	s.version = db.version
	s.db.Store(db)
	return db, nil
}

// openOurs opens the file as this Store has left it: with what it has committed
// last, or with the commit after that, which had failed. Since the file was closed,
// nobody held others off. What they wrote is not known to those who read here, who
// may have kept what they saw.
//
// It is opened for reading only when the system, after an error of the disk above
// all, does not let it be written.
func (s *Store) openOurs() (*database, error) {
	db, err := openDatabase(s.path, os.O_RDWR)
	refused := err
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		db, err = openDatabase(s.path, os.O_RDONLY)
	}
	if err != nil {
		return nil, err
	}
	switch db.version {
	case s.version:
	case version{s.version.tx + 1, s.signature}:
		if err = refused; err == nil {
			err = s.secure(db)
		}
	default:
		err = errForeign
	}
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return db, nil
}

// secure makes a commit durable whose last sync has failed. The system may show what
// the disk has not got, and have nothing more to write: so it is given the meta page
// once more. All other pages were synced before that was written.
func (s *Store) secure(db *database) error {
	page := make([]byte, db.pageSize)
	at := int64(db.version.tx%2) * db.pageSize
	if _, err := db.file.ReadAt(page, at); err != nil {
		return err
	}
	if _, err := db.file.WriteAt(page, at); err != nil {
		return err
	}
	return s.sync(db.file)
}

// regain opens a database for writing that could only be opened for reading, once
// the system allows it. Until then those who read are not disturbed.
func (s *Store) regain(db *database) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
		s.log().Info("the key store can be written again; opening it", zap.String("path", s.path))
		if db, err = s.replace(db); err != nil {
			return err
		}
		if !db.bolt.IsReadOnly() {
			return nil
		}
		err = berrors.ErrDatabaseReadOnly
	}
	return s.failed("writing", apikey.ErrUnavailable, fmt.Errorf("it can only be read until the system lets it be written again: %w", err))
}

// unmoved makes sure that the path still names the file that is in use: what is
// written to one without a name is lost.
func (s *Store) unmoved() error {
	named, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(named, s.file) {
		return errMoved
	}
	return err
}
