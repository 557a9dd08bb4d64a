// Package list measures what a page of a list of keys costs, in stores of two
// sizes:
//
//	go test -run '^$' -bench . ./bench/list
//
// The larger store has a million keys, and takes a quarter of a minute to make.
package list

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

const (
	small, large = "acme", "globex" // organizations
	ownKeys      = 200              // of the small one, between those of the large one
	batch        = 2000             // keys of a write
)

// BenchmarkPage has 200 keys of one organization among all the others, which are
// those of the other one.
func BenchmarkPage(b *testing.B) {
	for _, keys := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			ring := fill(b, keys)
			newest := page(b, ring, large, apikey.ListQuery{Limit: 1})
			middle := apikey.ListQuery{Limit: 20, After: newest.Keys[0].ID}
			for range 3 { // further in
				middle.After = page(b, ring, large, apikey.ListQuery{Limit: 100, After: middle.After}).Next
			}
			nobody := apikey.Filter{UserID: "nobody"}
			for _, c := range []struct {
				name, organization string
				query              apikey.ListQuery
				keys               int
			}{
				{"small_tenant", small, apikey.ListQuery{Limit: 20}, 20},
				{"small_tenant/limit=100", small, apikey.ListQuery{Limit: 100}, 100},
				{"small_tenant/filter_of_nobody", small, apikey.ListQuery{Limit: 20, Filter: nobody}, 0},
				{"large_tenant", large, apikey.ListQuery{Limit: 20}, 20},
				{"large_tenant/cursor", large, middle, 20},
				{"large_tenant/filter_of_nobody", large, apikey.ListQuery{Limit: 20, Filter: nobody}, 0},
			} {
				b.Run(c.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if got := page(b, ring, c.organization, c.query); len(got.Keys) != c.keys {
							b.Fatalf("the page has %d keys, want %d", len(got.Keys), c.keys)
						}
					}
				})
			}
		})
	}
}

func page(b *testing.B, ring *apikey.Keyring, organization string, query apikey.ListQuery) apikey.Page {
	b.Helper()
	got, err := ring.List(context.Background(), apikey.Operator(organization), query)
	if err != nil {
		b.Fatal(err)
	}
	return got
}

// fill returns a Keyring over a new store with so many keys.
func fill(b *testing.B, keys int) *apikey.Keyring {
	b.Helper()
	store, err := boltstore.Open(filepath.Join(b.TempDir(), "keys.db"))
	if err != nil {
		b.Fatal(err)
	}
	ring, err := apikey.Open(store, apikey.Settings{}, apikey.Policy{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := ring.Close(); err != nil {
			b.Error(err)
		}
	})
	issue := func(organization string, n int) {
		what := make([]apikey.Issue, n)
		for i := range what {
			what[i] = apikey.Issue{Name: "a name of a key", UserID: "alice"}
		}
		if _, err := ring.IssueMany(context.Background(), apikey.Operator(organization), what); err != nil {
			b.Fatal(err)
		}
	}
	// The organizations by turns, so that their records lie between each other.
	others := keys - ownKeys
	for done, own := 0, 0; done < others; {
		n := min(batch, others/4, others-done)
		issue(large, n)
		done += n
		if due := ownKeys * done / others; due > own {
			issue(small, due-own)
			own = due
		}
	}
	return ring
}
