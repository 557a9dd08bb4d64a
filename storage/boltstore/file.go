package boltstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// What the bucket "meta" says of the file.
var (
	metaBucket     = []byte("meta")
	applicationKey = []byte("application")
	formatKey      = []byte("format")
	writerKey      = []byte("writer")
)

const (
	application = "caddy-apikeys"
	format      = 1 // grows when an older version would misread the file
)

// inspect says whether the file at path is a sound key store, without writing to
// it and without reading more of it than a few pages. It comes before opening for
// writing, where bbolt does not survive a file that was cut off, and takes an
// empty one for new.
func inspect(path string) (os.FileInfo, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("it is %s: name a file", kind(info.Mode()))
	case info.Size() == 0:
		return nil, errors.New("the file is empty, which a key store never is: restore it from a backup, or delete it to start without keys")
	}
	db, err := openDatabase(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	tx, err := db.begin(false)
	if err == nil {
		err = guard(func() error { return identify(tx) })
		_ = tx.Rollback()
	}
	return info, errors.Join(err, db.close())
}

func kind(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link that leads to no file"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}

func identify(tx *bolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil || string(meta.Get(applicationKey)) != application {
		return errors.New("it is a bbolt database of another program: name another file")
	}
	switch version, err := strconv.Atoi(string(meta.Get(formatKey))); {
	case err != nil || version < 1:
		return fmt.Errorf("%w (it has no format): restore it from a backup", errDamage)
	case version > format:
		return fmt.Errorf("a newer version of this plugin wrote it, in format %d; this one reads up to format %d: upgrade the plugin", version, format)
	}
	return nil
}

// version names a state of a file: the transaction that made it, and the signature
// of who ran that. The number alone does not: whoever goes on from a copy counts on
// from the same one.
type version struct {
	tx     int
	writer string
}

func versionOf(tx *bolt.Tx) version {
	v := version{tx: tx.ID()}
	if meta := tx.Bucket(metaBucket); meta != nil {
		v.writer = string(meta.Get(writerKey))
	}
	return v
}

// newSignature returns one that nobody else signs with.
func newSignature() string { return rand.Text() }

// sign says in a key store who has written it.
func sign(tx *bolt.Tx, signature string) error {
	return tx.Bucket(metaBucket).Put(writerKey, []byte(signature))
}

// create brings an empty key store into being, unless another process was first,
// and says which. A crash on the way leaves nothing at path: the file is made
// beside it and gets its name when it is whole.
func create(path string) (created bool, err error) {
	dir := filepath.Dir(path)
	if err := makeDirectory(dir, syncDirectory); err != nil {
		return false, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	// Of two gateways that start at once, one would else put its empty file
	// into the place of the other's, which has keys by then.
	lockDirectory(d)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	db, err := openDatabase(fresh, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return false, err
	}
	err = db.bolt.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return errors.Join(
			meta.Put(applicationKey, []byte(application)),
			meta.Put(formatKey, strconv.AppendInt(nil, format, 10)),
		)
	})
	if err := errors.Join(err, db.close()); err != nil {
		return false, err
	}
	if err := os.Rename(fresh, path); err != nil {
		return false, err
	}
	return true, syncDirectory(d)
}

// makeDirectory makes a directory with those above it that are missing, for their
// owner alone. What a new one holds is durable only when its own name is, so the
// directory that has the name is synced with sync.
func makeDirectory(dir string, sync func(*os.File) error) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || parent == dir {
		return err
	}
	if err := makeDirectory(parent, sync); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(parent)
	if err != nil {
		return err
	}
	defer d.Close()
	return sync(d)
}

// canonical returns the one path by which a file is known, whether it exists
// yet or not: absolute, and without symbolic links as far as it exists.
func canonical(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(canonical(dir), filepath.Base(path))
	}
	return path
}
