// Package boltstore keeps an [apikey.Store] in one bbolt file: the default, for
// a gateway that runs alone.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// Store is a key store in a bbolt file:
//
//	meta                 bucket: what the file is
//	  application        "caddy-apikeys"
//	  format             "1"
//	  writer             a random text, the signature of who wrote it last
//	keys                 bucket: one for each table, by the table's name,
//	organizations        created by the first record in it
//	usage
//	counts
//
// The file belongs to one process, which holds an exclusive lock on it.
//
// Updates that wait while another one is being synced to the disk are committed
// together, with one sync. When a commit fails, what is in memory is dropped and
// the file is opened again before anybody is answered, and used when what it shows
// is known to be on the disk.
//
// A damaged or truncated file makes calls fail with [apikey.ErrUnavailable]. It
// does not end the process, though it is mapped into its memory.
type Store struct {
	path      string
	file      os.FileInfo // the file that was opened, to notice another one in its place
	signature string      // what this Store signs the file with
	log       func() *zap.Logger

	db atomic.Pointer[database] // nil while there is none to use

	mu      sync.Mutex // guards replacing db, and what follows
	version version    // that was committed last
	closed  bool
	retry   time.Time // not to be opened again before
	failure error     // why it could not be opened last

	leading chan struct{} // full while an update commits
	queue   chan *update  // to be committed with it
	writer  writer        // the one's that commits
	closing chan struct{}
	close   sync.Once

	commit   func(*bolt.Tx) error      // replaced by tests that make commits fail
	sync     func(*os.File) error      // and by those that make syncs fail
	writing  atomic.Pointer[time.Time] // since when an update commits
	patience time.Duration             // of a snapshot that others wait for
}

var _ apikey.Store = (*Store)(nil)

// Option changes how Open opens a store.
type Option func(*Store)

// WithLogger says where to log what an operator should know: a file that was
// created empty, was readable by others, or fails. log is called for each line,
// because a store outlives the configuration of the log. The default is nowhere.
func WithLogger(log func() *zap.Logger) Option {
	return func(s *Store) { s.log = log }
}

// Open opens the key store in the file at path. When there is no such file, it
// is created without any key, for its owner alone, and so are missing
// directories. A file that is not a sound key store is left alone, and the error
// says what is wrong with it. When another process uses the file, Open gives up
// after 3 seconds.
func Open(path string, options ...Option) (*Store, error) {
	s := &Store{
		path:      canonical(path),
		signature: newSignature(),
		log:       zap.NewNop,
		leading:   make(chan struct{}, 1),
		queue:     make(chan *update),
		closing:   make(chan struct{}),
		commit:    (*bolt.Tx).Commit,
		sync:      (*os.File).Sync,
		patience:  writePatience,
	}
	for _, option := range options {
		option(s)
	}
	db, err := s.openFirst()
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: the file and its directory must belong to the user that Caddy runs as", err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening key store %s: %w", s.path, err)
	}
	s.version = db.version
	s.db.Store(db)
	return s, nil
}

func (s *Store) openFirst() (*database, error) {
	if _, err := os.Lstat(s.path); errors.Is(err, fs.ErrNotExist) {
		created, err := create(s.path)
		if err != nil {
			return nil, fmt.Errorf("creating it: %w", err)
		}
		if created {
			s.log().Warn("created an empty key store: no key is valid until one is issued", zap.String("path", s.path))
		}
	}
	info, err := inspect(s.path)
	if err != nil {
		return nil, err
	}
	s.tighten(info)
	db, err := openDatabase(s.path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if s.file, err = db.file.Stat(); err == nil {
		err = s.unmoved() // by a command that has put another one in its place
	}
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return db, nil
}

// tighten takes a file of ours from other users of the machine.
func (s *Store) tighten(info os.FileInfo) {
	mode := info.Mode().Perm()
	if mode&0o077 == 0 || runtime.GOOS == "windows" {
		return
	}
	log := s.log().With(zap.String("path", s.path), zap.Stringer("mode", mode))
	if err := os.Chmod(s.path, mode&^0o077); err != nil {
		log.Warn("other users of this machine can get at the key store; set its mode to 0600", zap.Error(err))
		return
	}
	log.Warn("other users of this machine could get at the key store; its mode is 0600 now")
}

func (s *Store) failed(doing string, kind, err error) error {
	return fmt.Errorf("%s key store %s: %w: %w", doing, s.path, kind, err)
}

// current returns the open database. It waits while it is being opened again,
// and tries to when that has failed.
func (s *Store) current() (*database, error) {
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	return s.openAgain()
}

// begin starts a transaction on the database as it is open now.
func (s *Store) begin(writable bool) (*database, *bolt.Tx, error) {
	for {
		db, err := s.current()
		if err != nil {
			return nil, nil, err
		}
		tx, err := db.begin(writable)
		if db.lost.Load() {
			s.db.CompareAndSwap(db, nil)
		}
		switch {
		case err == nil:
			return db, tx, nil
		case errors.Is(err, berrors.ErrDatabaseNotOpen), errors.Is(err, os.ErrClosed):
			// It was closed under us. Current waits until that is over.
		case errors.Is(err, berrors.ErrDatabaseReadOnly):
			if err := s.regain(db); err != nil {
				return nil, nil, err
			}
		default:
			return nil, nil, s.failed("using", apikey.ErrUnavailable, err)
		}
	}
}

// View implements [apikey.Store].
func (s *Store) View(ctx context.Context, fn func(apikey.Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if db := s.db.Load(); db != nil {
		if r := db.idle.take(); r != nil {
			if whole, err := s.read(db, r, fn); whole {
				return err
			}
		}
	}
	for {
		db, tx, err := s.begin(false) // says what is wrong, if it can be said
		if err != nil {
			return err
		}
		if whole, err := s.read(db, s.newReader(tx), fn); whole {
			return err
		}
	}
}

// read runs fn and reports whether the file had all that it may have looked at. What
// came to light without a doubt costs no call to the system.
func (s *Store) read(db *database, r *reader, fn func(apikey.Reader) error) (whole bool, err error) {
	defer func() {
		if whole = err == nil && !r.doubtful || db.holds(r.tx) == nil; whole {
			db.idle.done(r)
		} else {
			_ = r.tx.Rollback()
		}
	}()
	defer s.recoverFault(&err)
	r.doubtful = false
	return false, fn(r)
}

// recoverFault, deferred around a function of the caller, turns a memory fault
// into an error: the function has touched a value in a part of the file that
// cannot be read any more. Panics of the function's own go on.
func (s *Store) recoverFault(err *error) {
	p := recover()
	if _, fault := p.(interface{ Addr() uintptr }); fault {
		*err = s.failed("reading", apikey.ErrUnavailable, damage(p))
		return
	}
	if p != nil {
		panic(p)
	}
}

// Close implements [apikey.Store].
func (s *Store) Close() (err error) {
	s.close.Do(func() {
		close(s.closing)
		s.leading <- struct{}{} // nobody leads any more
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed, s.retry = true, time.Time{}
		if db := s.db.Swap(nil); db != nil {
			err = db.close()
		}
	})
	if err != nil {
		return fmt.Errorf("closing key store %s: %w", s.path, err)
	}
	return nil
}
