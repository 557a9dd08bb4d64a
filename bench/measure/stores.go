package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// keyStore is a store that was filled and is never written again, and tokens of
// it in any order.
type keyStore struct {
	keys   int
	path   string
	tokens string        // a file
	sample int           // how many tokens it has
	took   time.Duration // to fill; 0: it was there
}

// hotKeys is the largest number of keys that a load uses at random, and so how
// many tokens wrk has to keep.
const hotKeys = 100_000

// allTokens is up to which size a store has all its tokens in the sample: a load
// that uses each key once needs them.
const allTokens = 1_000_000

func (s *keyStore) String() string { return short(s.keys) }

// short writes a number of keys as 10k or 1M.
func short(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1_000 && n%1_000 == 0:
		return fmt.Sprintf("%dk", n/1_000)
	}
	return fmt.Sprint(n)
}

// fill makes the stores. Those of an earlier run are used again only where keep
// asks for it: the format of a store may have changed since.
func (l *lab) fill(ctx context.Context, sizes []int, keep bool) error {
	program, err := child.Build(ctx, "bench/fill", l.dir)
	if err != nil {
		return err
	}
	for _, keys := range sizes {
		s := &keyStore{
			keys: keys, path: filepath.Join(l.dir, fmt.Sprintf("keys-%d.db", keys)),
			tokens: filepath.Join(l.dir, fmt.Sprintf("tokens-%d", keys)), sample: keys,
		}
		if keys > allTokens {
			s.sample = hotKeys
		}
		l.stores = append(l.stores, s)
		// The tokens are written last: with them, the store is whole.
		if _, err := os.Stat(s.tokens); err == nil && keep {
			continue
		}
		l.progress("filling a store with %d keys", keys)
		for _, path := range []string{s.tokens, s.path} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		start := time.Now()
		cmd := child.Command{Args: []string{program, "-keys", fmt.Sprint(keys), "-path", s.path, "-tokens", s.tokens, "-sample", fmt.Sprint(s.sample)}}.Exec(ctx)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("filling a store with %d keys: %w", keys, err)
		}
		s.took = time.Since(start)
	}
	return l.writeRefused(ctx)
}

// main returns the store that most loads use: the largest of up to a million
// keys, or the smallest.
func (l *lab) main() *keyStore {
	main := l.stores[0]
	for _, s := range l.stores {
		if s.keys <= allTokens {
			main = s
		}
	}
	return main
}

func (l *lab) largest() *keyStore { return l.stores[len(l.stores)-1] }

// copy returns the path of a copy of the store: a file belongs to one process,
// and a use is written into it.
func (l *lab) copy(s *keyStore, name string) (string, error) {
	path := filepath.Join(l.dir, "copy-"+strings.ReplaceAll(name, " ", "-")+".db")
	from, err := os.Open(s.path)
	if err != nil {
		return "", err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	return path, errors.Join(err, to.Sync(), to.Close())
}

// storeSizes tells what filling the stores came to.
func (l *lab) storeSizes() (sizes []storeSize, err error) {
	for _, s := range l.stores {
		info, err := os.Stat(s.path)
		if err != nil {
			return nil, err
		}
		size := storeSize{Name: s.String(), Keys: s.keys, Bytes: info.Size()}
		if s.took > 0 {
			size.KeysPerSecond = float64(s.keys) / s.took.Seconds()
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// removeStores removes the stores, their copies and tokens.
func (l *lab) removeStores() (err error) {
	for _, pattern := range []string{"*.db", "tokens-*"} {
		paths, globErr := filepath.Glob(filepath.Join(l.dir, pattern))
		err = errors.Join(err, globErr)
		for _, path := range paths {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// writeRefused writes files of tokens that no store knows: the good ones of
// another gateway, and the same with a mistake in each.
func (l *lab) writeRefused(ctx context.Context) error {
	ring, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
	if err != nil {
		return err
	}
	defer ring.Close()
	what := make([]apikey.Issue, 10_000)
	for i := range what {
		what[i] = apikey.Issue{Name: "elsewhere", UserID: "nobody"}
	}
	made, err := ring.IssueMany(ctx, apikey.Operator("elsewhere"), what)
	if err != nil {
		return err
	}
	var good, bad []string
	for i := range made {
		token := made[i].Token
		good, bad = append(good, token), append(bad, misspell(token))
	}
	l.unknown, l.badChecksum = filepath.Join(l.dir, "tokens-unknown"), filepath.Join(l.dir, "tokens-bad-checksum")
	return errors.Join(writeLines(l.unknown, good), writeLines(l.badChecksum, bad))
}

// misspell changes a character in the middle of a token.
func misspell(token string) string {
	at, other := len(token)/2, "A"
	if token[at:at+1] == other {
		other = "B"
	}
	return token[:at] + other + token[at+1:]
}

func writeLines(path string, lines []string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriter(f)
	for _, line := range lines {
		out.WriteString(line + "\n")
	}
	return out.Flush()
}
