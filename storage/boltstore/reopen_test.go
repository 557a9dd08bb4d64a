//go:build linux

package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

// closedWhile makes a commit fail and keeps the file from being opened again before
// meanwhile has run.
func (s faulty) closedWhile(commit func(*bolt.Tx) error, meanwhile func()) {
	s.t.Helper()
	away := s.path + ".away"
	s.nextCommit(func(tx *bolt.Tx) error { return errors.Join(commit(tx), os.Rename(s.path, away), errIO) })
	if err := s.put("failing", "1"); !errors.Is(err, apikey.ErrOutcomeUnknown) {
		s.t.Fatalf("answered %v, want unknown", err)
	}
	if err := os.Rename(away, s.path); err != nil {
		s.t.Fatal(err)
	}
	meanwhile()
	s.aSecondPasses()
}

// elsewhere is what another gateway does with the file.
func (s faulty) elsewhere(do func(other faulty)) {
	s.t.Helper()
	other, err := Open(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	do(faulty{other, s.t})
	if err := other.Close(); err != nil {
		s.t.Fatal(err)
	}
}

func (s faulty) content() []byte {
	s.t.Helper()
	content, err := os.ReadFile(s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

// overwriteAll copies a backup over the file, which stays the same inode.
func (s faulty) overwriteAll(backup []byte) {
	s.t.Helper()
	if err := os.WriteFile(s.path, backup, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

var (
	lost    = func(*bolt.Tx) error { return nil }
	written = (*bolt.Tx).Commit
)

// What the Keyring keeps in memory would else be taken for what is in the file: a
// key that another gateway has revoked would stay valid.
func TestAFileThatOthersWroteWhileItWasClosedIsNotUsedAgain(t *testing.T) {
	nothing := func(s faulty) []byte { return s.content() }
	update := func(s faulty) []byte {
		defer s.mustPut("a", "1")
		return s.content()
	}
	write := func(s faulty, _ []byte) { s.elsewhere(func(other faulty) { other.mustPut("a", "2") }) }
	restore := func(s faulty, backup []byte) { s.overwriteAll(backup) }
	for name, test := range map[string]struct {
		before    func(s faulty) (backup []byte) // by this process
		commit    func(*bolt.Tx) error
		meanwhile func(s faulty, backup []byte)
	}{
		"another gateway": {update, lost, write},
		"another gateway, while this one had written none": {nothing, lost, write},
		"another gateway, on a commit that the disk has":   {update, written, write},
		"a backup": {update, lost, restore},
		"a backup, on a commit that the disk has":           {update, written, restore},
		"a backup with as many commits by another gateway":  {update, lost, func(s faulty, b []byte) { restore(s, b); write(s, b) }},
		"a backup of what this process has written earlier": {func(s faulty) []byte { update(s); return update(s) }, lost, restore},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			backup := test.before(s)
			s.closedWhile(test.commit, func() { test.meanwhile(s, backup) })
			found := s.content()
			s.unavailable("another program has written to the file")
			if err := s.View(t.Context(), func(apikey.Reader) error { return nil }); !errors.Is(err, apikey.ErrReplaced) {
				t.Errorf("%v does not tell that what is known is worth nothing", err)
			}
			if !bytes.Equal(s.content(), found) {
				t.Error("the file has changed")
			}
		})
	}
}

// Compacted files have few commits, so that their numbers are easily the same.
func TestACompactedBackupIsNotTakenForAnotherOne(t *testing.T) {
	source := open(t)
	var compacted []string
	for i := range 2 {
		source.mustPut("a", fmt.Sprint(i))
		backup := fmt.Sprint(source.path, i)
		if err := source.copyTo(backup); err != nil {
			t.Fatal(err)
		}
		compacted = append(compacted, backup+".compacted")
		if err := Rewrite(t.Context(), backup, compacted[i], storage.Rewriting{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	store, err := Open(compacted[0])
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := faulty{store, t}
	s.closedWhile(lost, func() { s.overwriteAll(faulty{&Store{path: compacted[1]}, t}.content()) })
	s.unavailable("another program has written to the file")
}

func TestAFileThatOthersOnlyReadWhileItWasClosedIsUsedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		commit func(*bolt.Tx) error
		want   string
	}{
		"after a commit that is lost":          {lost, ""},
		"after a commit that the disk has got": {written, "1"},
	} {
		for _, wrote := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, having written before: %v", name, wrote), func(t *testing.T) {
				s := open(t)
				if wrote {
					s.mustPut("a", "1")
				}
				s.closedWhile(test.commit, func() {
					s.elsewhere(func(other faulty) { other.want("failing", test.want) })
				})
				s.want("failing", test.want)
				s.mustPut("b", "2")
				s.want("b", "2")
			})
		}
	}
}

func TestACommitWhoseSyncFailedIsServedOnlyWhenItIsOnTheDisk(t *testing.T) {
	s := open(t)
	s.mustPut("a", "1")
	long := time.Unix(0, 0)
	s.nextCommit(func(tx *bolt.Tx) error {
		return errors.Join(tx.Commit(), os.Chtimes(s.path, long, long), errIO)
	})
	s.sync = func(*os.File) error { return errIO }
	if err := s.put("a", "2"); !errors.Is(err, apikey.ErrOutcomeUnknown) {
		t.Errorf("answered %v, want unknown", err)
	}
	s.unavailable("input/output error")
	s.aSecondPasses()
	s.unavailable("input/output error")

	// After a sync that failed, the next one succeeds even if the disk has not got
	// what was written before both.
	s.sync = func(f *os.File) error {
		if info, err := f.Stat(); err != nil || info.ModTime().Equal(long) {
			t.Errorf("nothing was written again before the sync, %v", err)
		}
		return f.Sync()
	}
	s.aSecondPasses()
	s.want("a", "2")
	s.mustPut("b", "1")
}

// writable says whether the system lets the file be opened for writing, by whoever
// runs the test.
func (s faulty) writable(may bool) error {
	if os.Geteuid() != 0 {
		mode := os.FileMode(0o400)
		if may {
			mode = 0o600
		}
		return os.Chmod(s.path, mode)
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	f, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	flags |= immutable
	if may {
		flags &^= immutable
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// openRefusable opens a store in a file that writable works with.
func openRefusable(t *testing.T) faulty {
	t.Helper()
	s := open(t)
	if err := errors.Join(s.writable(false), s.writable(true)); err != nil {
		t.Skipf("root cannot be kept from writing to a file here: %v", err)
	}
	t.Cleanup(func() { _ = s.writable(true) })
	return s
}

func TestAFileThatCanOnlyBeReadAfterAFaultIsReadAndLaterWritten(t *testing.T) {
	s := openRefusable(t)
	s.mustPut("a", "1")
	s.nextCommit(func(*bolt.Tx) error { return errors.Join(s.writable(false), errIO) })
	s.unwritable("input/output error")
	for range 2 {
		s.want("a", "1")
		s.unwritable("it can only be read")
	}
	if s.idle() == 0 {
		t.Error("no reader is kept for the next View")
	}
	if err := s.writable(true); err != nil {
		t.Fatal(err)
	}
	s.mustPut("a", "2")
	s.want("a", "2")
}

func TestACommitWhoseSyncFailedIsNotServedFromAFileThatCanOnlyBeRead(t *testing.T) {
	s := openRefusable(t)
	s.mustPut("a", "1")
	s.nextCommit(func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), s.writable(false), errIO) })
	if err := s.put("a", "2"); !errors.Is(err, apikey.ErrOutcomeUnknown) {
		t.Errorf("answered %v, want unknown", err)
	}
	s.unavailable("open " + s.path)
	if err := s.writable(true); err != nil {
		t.Fatal(err)
	}
	s.aSecondPasses()
	s.want("a", "2")
	s.mustPut("b", "1")
}
