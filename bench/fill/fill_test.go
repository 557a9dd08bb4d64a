package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

func TestAFilledStoreHasWholeKeys(t *testing.T) {
	const keys = 2*batch + 17
	dir := t.TempDir()
	path, tokens := filepath.Join(dir, "keys.db"), filepath.Join(dir, "tokens")
	if err := run(context.Background(), path, keys, tokens, keys); err != nil {
		t.Fatal(err)
	}
	store, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := apikey.Open(store, apikey.Settings{}, apikey.Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	stats, err := ring.Stats(context.Background())
	if err != nil || stats.Issued != keys {
		t.Fatalf("the store has %d keys, %v", stats.Issued, err)
	}
	text, err := os.ReadFile(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(tokens); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the tokens have mode %v, %v", info.Mode(), err)
	}
	seen := make(map[string]bool)
	for token := range strings.Lines(string(text)) {
		token = strings.TrimSpace(token)
		seen[token] = true
		v, err := ring.Verify(context.Background(), token)
		if err != nil || !v.Allowed() {
			t.Fatalf("a token is refused: %v, %v", v.Reason, err)
		}
		if v.ServiceAccountID == "" {
			continue // the first key of the organization
		}
		key, err := ring.Get(context.Background(), apikey.Operator(""), v.KeyID)
		if err != nil || len(key.Name) != 16 || key.OrganizationID == "" || key.CreatedBy == "" || key.MintedBy.IsZero() {
			t.Fatalf("a key is %+v, %v", key, err)
		}
	}
	if len(seen) != keys {
		t.Errorf("%d tokens of %d keys", len(seen), keys)
	}
}

func TestAFileThatIsThereIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(context.Background(), path, 10, "", 0); err == nil {
		t.Error("it was filled")
	}
	if text, _ := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("it is %q now", text)
	}
}

func TestEveryTokenHasTheSameChance(t *testing.T) {
	const offered, size, times = 20, 5, 4000
	counts := make(map[string]int)
	for range times {
		s := newSample(size)
		for i := range offered {
			s.offer(fmt.Sprint(i))
		}
		if len(s.tokens) != size {
			t.Fatalf("%d tokens", len(s.tokens))
		}
		for _, token := range s.tokens {
			counts[token]++
		}
	}
	const mean = times * size / offered // 1000, with a deviation of 27
	for i := range offered {
		if n := counts[fmt.Sprint(i)]; n < mean-200 || n > mean+200 {
			t.Errorf("token %d was kept %d times of %d", i, n, times)
		}
	}
}

func TestProgressTellsHowLongItTakes(t *testing.T) {
	p := &progress{done: 250, total: 1000}
	if got := p.line(10 * time.Second); !strings.Contains(got, " 25 %  25 keys/s, 30s left") {
		t.Errorf("it says %q", got)
	}
}
