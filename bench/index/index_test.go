package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// roomy is the capacity of bounded structures for a number of keys. Ours puts
// keys into sets of 64: with just as many entries as keys, many sets overflow.
func roomy(keys int) int { return 2 * keys }

// store keeps records in a map, as much as it takes to fill an index, and can be
// emptied: what a Keyring has in memory is its index alone then, and whoever asks
// for a key that is not in there is told that the store is gone.
type store struct {
	mu      sync.RWMutex
	records map[string][]byte
}

func (s *store) View(_ context.Context, fn func(apikey.Reader) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.records == nil {
		return apikey.ErrUnavailable
	}
	return fn(s)
}

func (s *store) Update(_ context.Context, fn func(apikey.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		return apikey.ErrUnavailable
	}
	return fn(s)
}

func (s *store) empty() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = nil
}

func place(t apikey.Table, key []byte) string { return t.String() + string(key) }

func (s *store) Get(t apikey.Table, key []byte) ([]byte, error) { return s.records[place(t, key)], nil }

func (s *store) Put(t apikey.Table, key, value []byte) error {
	s.records[place(t, key)] = bytes.Clone(value)
	return nil
}

func (*store) Delete(apikey.Table, []byte) error { return errors.ErrUnsupported }

func (*store) Scan(apikey.Table, apikey.Range, func(key, value []byte) bool) error {
	return errors.ErrUnsupported
}

func (*store) Close() error { return nil }

// ring returns a Keyring whose index has n keys, and their tokens.
func ring(tb testing.TB, n int) (*apikey.Keyring, []string) {
	tb.Helper()
	keys := &store{records: make(map[string][]byte)}
	k, err := apikey.Open(keys, apikey.Settings{Capacity: roomy(n)}, apikey.Policy{}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { k.Close() })
	what := make([]apikey.Issue, n)
	for i := range what {
		what[i] = apikey.Issue{Name: "bench", UserID: fmt.Sprintf("user-%06d", i), Scope: apikey.ScopeReadWrite}
	}
	made, err := k.IssueMany(context.Background(), apikey.Operator("acme"), what)
	if err != nil {
		tb.Fatal(err)
	}
	tokens := make([]string, n)
	for i := range made {
		tokens[i] = made[i].Token
	}
	rand.Shuffle(n, func(i, j int) { tokens[i], tokens[j] = tokens[j], tokens[i] })
	for _, token := range tokens {
		if v, err := k.Verify(context.Background(), token); err != nil || !v.Allowed() {
			tb.Fatal(v.Reason, err)
		}
	}
	keys.empty()
	// Without the few whose set was full.
	tokens = slices.DeleteFunc(tokens, func(token string) bool {
		_, err := k.Verify(context.Background(), token)
		return err != nil
	})
	if len(tokens) < n*9/10 {
		tb.Fatalf("the index has %d of %d keys", len(tokens), n)
	}
	return k, tokens
}

// rivals returns the other structures, empty.
func rivals(n int) map[string]func() lookup {
	return map[string]func() lookup{
		"none":        func() lookup { return new(none) },
		"sharded-map": func() lookup { return newShardedMap() },
		"sync.Map":    func() lookup { return new(syncMap) },
		"otter":       func() lookup { return newOtterCache(roomy(n)) },
	}
}

var rivalNames = []string{"none", "sharded-map", "sync.Map", "otter"}

// fill puts a record for each token into a structure.
func fill(in lookup, tokens []string) {
	for i, token := range tokens {
		id, secret, _ := parse(token)
		in.put(id, &record{
			digest: sha256.Sum256([]byte(secret)), organization: "acme", user: fmt.Sprintf("user-%06d", i),
			scope: apikey.ScopeReadWrite,
		})
	}
}

var sizes = []int{10_000, 1 << 18}

func BenchmarkVerify(b *testing.B) {
	for _, n := range sizes {
		k, tokens := ring(b, n)
		b.Run(fmt.Sprintf("ours/keys=%d", n), func(b *testing.B) {
			hit(b, tokens, func(token string) bool {
				v, err := k.Verify(context.Background(), token)
				return err == nil && v.Allowed()
			})
		})
		for _, name := range rivalNames {
			in, clock, used := rivals(n)[name](), apikey.NewClock(), tokens
			if name == "none" {
				used = slices.Repeat(tokens[:1], n) // with one record there is one good token
			}
			fill(in, used)
			b.Run(fmt.Sprintf("%s/keys=%d", name, n), func(b *testing.B) {
				hit(b, used, func(token string) bool {
					v := verify(in, token, clock)
					return v.Allowed() || name == "otter" // which may have evicted one
				})
			})
		}
	}
}

// hit checks tokens in turn, on all processors.
func hit(b *testing.B, tokens []string, check func(string) bool) {
	b.ReportAllocs()
	var start atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		at := int(start.Add(7919)) % len(tokens)
		for pb.Next() {
			if !check(tokens[at]) {
				b.Error("a good key was refused")
			}
			if at++; at == len(tokens) {
				at = 0
			}
		}
	})
}

// BenchmarkCollection is what a collection costs while a structure is full.
func BenchmarkCollection(b *testing.B) {
	for _, n := range sizes {
		tokens := collectOurs(b, n)
		for _, name := range rivalNames {
			in := rivals(n)[name]()
			fill(in, tokens)
			b.Run(fmt.Sprintf("%s/keys=%d", name, n), collect)
			runtime.KeepAlive(in)
		}
	}
}

func collectOurs(b *testing.B, n int) []string {
	k, tokens := ring(b, n)
	b.Run(fmt.Sprintf("ours/keys=%d", n), collect)
	runtime.KeepAlive(k)
	return tokens
}

func collect(b *testing.B) {
	runtime.GC()
	for b.Loop() {
		runtime.GC()
	}
}

// TestRivalsDoWhatVerifyDoes keeps the comparison fair: for a good token and for
// spoiled ones, all come to the same verdict.
func TestRivalsDoWhatVerifyDoes(t *testing.T) {
	k, tokens := ring(t, 100)
	for _, name := range rivalNames[1:] {
		in := rivals(100)[name]()
		fill(in, tokens)
		for _, token := range tokens {
			ours, err := k.Verify(context.Background(), token)
			theirs := verify(in, token, apikey.NewClock())
			if err != nil || !theirs.Allowed() || theirs.KeyID != ours.KeyID {
				t.Fatalf("%s: verdict %+v, ours %+v, %v", name, theirs, ours, err)
			}
			for at := range token {
				spoiled := token[:at] + "-" + token[at+1:]
				if v := verify(in, spoiled, apikey.NewClock()); v.Allowed() {
					t.Fatalf("%s accepts a token with its byte %d changed", name, at)
				}
			}
		}
	}
}
