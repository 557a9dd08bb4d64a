//go:build unix

package boltstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// keyStore makes a key store with one record and closes it.
func keyStore(t testing.TB, path string) {
	t.Helper()
	s := open(t, path)
	put(t, s, "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// foreign makes a bbolt file that says of itself what fields say.
func foreign(t testing.TB, path, bucket string, fields ...string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte(bucket))
		for i := 0; i < len(fields) && err == nil; i += 2 {
			err = b.Put([]byte(fields[i]), []byte(fields[i+1]))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsNotASoundKeyStoreIsRefusedWithAReasonAndLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(path string)
		says string
	}{
		{"an empty file", func(path string) { write(t, path, nil) }, "is empty, which a key store never is"},
		{"one byte", func(path string) { write(t, path, []byte{0}) }, "not a key store, or it is damaged"},
		{"a picture", func(path string) {
			write(t, path, append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 100<<10)...))
		}, "not a key store, or it is damaged"},
		{"a database of SQLite", func(path string) {
			write(t, path, append([]byte("SQLite format 3\x00"), make([]byte, 20<<10)...))
		}, "not a key store, or it is damaged"},
		{"zeros", func(path string) { write(t, path, make([]byte, 64<<10)) }, "not a key store, or it is damaged"},
		{"a directory", func(path string) { os.Mkdir(path, 0o700) }, "is a directory"},
		{"a named pipe", func(path string) { syscall.Mkfifo(path, 0o600) }, "is a named pipe"},
		{"a device", func(path string) { os.Symlink(os.DevNull, path) }, "is a device"},
		{"a symbolic link to itself", func(path string) { os.Symlink(path, path) }, "a symbolic link that leads to no file"},
		{"a symbolic link to nothing", func(path string) { os.Symlink(path+".gone", path) }, "a symbolic link that leads to no file"},
		{"an empty bbolt file", func(path string) { foreign(t, path, "x") }, "a bbolt database of another program"},
		{"a bbolt file of another program", func(path string) {
			foreign(t, path, "meta", "application", "something else", "format", "1")
		}, "a bbolt database of another program"},
		{"a newer format", func(path string) {
			foreign(t, path, "meta", "application", "caddy-apikeys", "format", "2")
		}, "upgrade the plugin"},
		{"no format", func(path string) {
			foreign(t, path, "meta", "application", "caddy-apikeys")
		}, "damaged"},
		{"both meta pages overwritten", func(path string) {
			keyStore(t, path)
			content, _ := os.ReadFile(path)
			clear(content[:2*os.Getpagesize()])
			write(t, path, content)
		}, "not a key store, or it is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			c.make(path)
			before, _ := os.Lstat(path)
			var content []byte
			if before.Mode().IsRegular() {
				content, _ = os.ReadFile(path)
			}
			s, err := boltstore.Open(path)
			if err == nil {
				s.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error does not say %q: %v", c.says, err)
			}
			if c.name != "a device" && !strings.Contains(err.Error(), path) {
				t.Errorf("the error does not name %s: %v", path, err)
			}
			after, err := os.Lstat(path)
			if err != nil || after.Mode() != before.Mode() || after.Size() != before.Size() {
				t.Errorf("it became %v, %v", after, err)
			}
			if content != nil {
				if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
					t.Error("its content has changed")
				}
			}
		})
	}
}

func TestAFileCutAtAnyPageIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.db")
	s := open(t, path)
	for i := range 40 {
		put(t, s, strings.Repeat("k", i+1), strings.Repeat("v", 1500))
	}
	s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var used int // what follows has never held anything
	db.View(func(tx *bolt.Tx) error { used = int(tx.Size()); return nil })
	db.Close()
	page := os.Getpagesize()
	if used < 20*page {
		t.Fatalf("the file has %d pages in use, too few for the test", used/page)
	}
	cut := filepath.Join(dir, "cut.db")
	for size := 1; size <= len(whole); {
		write(t, cut, whole[:size])
		s, err := boltstore.Open(cut)
		if refused := err != nil; refused != (size < used) {
			t.Errorf("cut to %d bytes of %d in use: %v", size, used, err)
		}
		if s != nil {
			for i := range 40 {
				want(t, s, strings.Repeat("k", i+1), strings.Repeat("v", 1500))
			}
			put(t, s, "new", "1")
			s.Close()
		}
		switch {
		case size == 1:
			size = page - 1
		case size%page == page-1:
			size++
		default:
			size += page - 1
		}
	}
}

func TestASymbolicLinkToAKeyStoreIsFollowed(t *testing.T) {
	dir := t.TempDir()
	keyStore(t, filepath.Join(dir, "real.db"))
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink("real.db", link); err != nil {
		t.Fatal(err)
	}
	s := open(t, link)
	want(t, s, "a", "1")
	put(t, s, "b", "2")
	s.Close()
	want(t, open(t, filepath.Join(dir, "real.db")), "b", "2")
}

func TestAMissingFileIsCreatedForItsOwnerAloneAndLoudly(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "new", "directory")
	path := filepath.Join(dir, "keys.db")
	core, logs := observer.New(zapcore.InfoLevel)
	s, err := boltstore.Open(path, boltstore.WithLogger(func() *zap.Logger { return zap.New(core) }))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, mode := range map[string]os.FileMode{path: 0o600, dir: 0o700, filepath.Dir(dir): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	if entries := logs.FilterMessageSnippet("empty key store").FilterField(zap.String("path", path)).All(); len(entries) != 1 || entries[0].Level != zapcore.WarnLevel {
		t.Errorf("logged %v", logs.All())
	}
	if _, err := os.Lstat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was left beside the file: %v", err)
	}
}

func TestWhatACrashLeftOfCreatingAFileIsNoObstacle(t *testing.T) {
	for name, leftover := range map[string][]byte{"nothing": {}, "a part": make([]byte, 5000)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys.db")
			write(t, path+".new", leftover)
			keyStore(t, path)
			want(t, open(t, path), "a", "1")
		})
	}
}

func TestAFileThatOthersCouldReadIsTightenedWithAWarning(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o640, 0o606, 0o777} {
		path := filepath.Join(t.TempDir(), "keys.db")
		keyStore(t, path)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zapcore.InfoLevel)
		s, err := boltstore.Open(path, boltstore.WithLogger(func() *zap.Logger { return zap.New(core) }))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if info, _ := os.Stat(path); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("mode %v became %v", mode, info.Mode())
		}
		if logs.FilterLevelExact(zapcore.WarnLevel).FilterField(zap.String("path", path)).Len() != 1 {
			t.Errorf("mode %v: logged %v", mode, logs.All())
		}
	}
}
