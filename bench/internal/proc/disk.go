package proc

import (
	"os"
	"slices"
	"time"
)

// Syncs tells how fast a disk makes 4 KiB durable.
type Syncs struct {
	PerSecond float64
	P50       time.Duration
}

// ProbeSyncs overwrites 4 KiB of a file in dir and waits for the disk, again and
// again for a while. The file is as large as it will be before it begins, so that
// only data is synced.
func ProbeSyncs(dir string, during time.Duration) (Syncs, error) {
	const block, blocks = 4096, 256
	f, err := os.CreateTemp(dir, "fdatasync-*")
	if err != nil {
		return Syncs{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, block*blocks)); err != nil {
		return Syncs{}, err
	}
	if err := f.Sync(); err != nil {
		return Syncs{}, err
	}
	var took []time.Duration
	data := make([]byte, block)
	start := time.Now()
	for time.Since(start) < during {
		data[0]++
		before := time.Now()
		if _, err := f.WriteAt(data, int64(len(took)%blocks)*block); err != nil {
			return Syncs{}, err
		}
		if err := fdatasync(f); err != nil {
			return Syncs{}, err
		}
		took = append(took, time.Since(before))
	}
	elapsed := time.Since(start)
	slices.Sort(took)
	return Syncs{PerSecond: float64(len(took)) / elapsed.Seconds(), P50: took[len(took)/2]}, nil
}
