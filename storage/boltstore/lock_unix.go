//go:build unix && !aix && !android && !illumos && !solaris

package boltstore

import (
	"os"
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
