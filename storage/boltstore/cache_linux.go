package boltstore

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCached makes the system forget what it has of the file in memory, so that
// the next read shows what is on the disk. After a failed sync the two may
// differ, and a second sync that succeeds does not mean that they agree.
func dropCached(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Fdatasync(int(f.Fd())) // what waits to be written cannot be dropped
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
