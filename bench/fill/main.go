// Command fill makes a key store of any size, through the product's own code:
//
//	go run ./bench/fill -keys 10000000 -path keys.db -tokens tokens.txt -sample 100000
//
// Each key has all that a key can have but for a description and an end: a name
// of 16 characters, an organization, a service account as its owner, and the user
// and the key that made it. Organizations get their keys in turns.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

func main() {
	keys := flag.Int("keys", 1_000_000, "how many `keys` to issue")
	path := flag.String("path", "", "the `file` to make (default api-keys-KEYS.db in the folder for temporary files)")
	tokens := flag.String("tokens", "", "a `file` for tokens, one a line, shuffled; anybody who can read it has these keys")
	sample := flag.Int("sample", 100_000, "how many `tokens` go there, each with the same chance")
	flag.Parse()
	if *path == "" {
		*path = filepath.Join(os.TempDir(), fmt.Sprintf("api-keys-%d.db", *keys))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *path, *keys, *tokens, *sample); err != nil {
		fmt.Fprintln(os.Stderr, "fill:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string, keys int, tokens string, sample int) error {
	if keys < 1 {
		return errors.New("-keys must be at least 1")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists: name another file with -path", path)
	}
	if tokens == "" {
		sample = 0
	}
	start := time.Now()
	kept := newSample(sample)
	if err := fill(ctx, path, keys, kept, newProgress(os.Stderr, keys)); err != nil {
		return err
	}
	took := time.Since(start)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d keys in %.1f s, %.0f keys/s, %d bytes, %.1f bytes a key\n",
		path, keys, took.Seconds(), float64(keys)/took.Seconds(), info.Size(), float64(info.Size())/float64(keys))
	if tokens == "" {
		return nil
	}
	return kept.write(tokens)
}

// fill issues keys into a new store, and closes it.
func fill(ctx context.Context, path string, keys int, kept *sample, progress *progress) (err error) {
	store, err := boltstore.Open(path)
	if err != nil {
		return err
	}
	ring, err := apikey.Open(store, apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	defer progress.end()
	return issueAll(ctx, ring, keys, func(made []apikey.Issued) {
		for i := range made {
			kept.offer(made[i].Token)
		}
		progress.add(len(made))
	})
}
