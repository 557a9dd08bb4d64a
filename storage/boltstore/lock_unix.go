//go:build unix && !aix && !android && !illumos && !solaris

package boltstore

import (
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// unlock gives up the lock that bbolt holds on a file.
func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
}

// lockDirectory locks a directory until it is closed. It goes on without when it
// cannot, or when somebody holds the lock for longer than creating a file takes.
func lockDirectory(dir *os.File) {
	for deadline := time.Now().Add(lockTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != syscall.EWOULDBLOCK {
			return
		}
	}
}

// lockShared locks a file against writers until it is closed.
func lockShared(f *os.File) error {
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if err == syscall.EWOULDBLOCK && time.Now().After(deadline) {
			return errLocked
		}
		if err != syscall.EWOULDBLOCK {
			return err
		}
	}
}

// give makes a file belong to whom the one belonged that it takes the place of,
// or the directory, when root has made it for another user.
func give(path, of string, before os.FileInfo) {
	if before == nil {
		var err error
		if before, err = os.Stat(filepath.Dir(of)); err != nil {
			return
		}
	}
	if owner, ok := before.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		_ = os.Chown(path, int(owner.Uid), int(owner.Gid))
	}
}
