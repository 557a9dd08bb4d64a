package apikey_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)


var ctx = context.Background()

// issueMany opens a Keyring over a store and issues n keys in it.
func issueMany(b *testing.B, store apikey.Store, n int, settings apikey.Settings) (*apikey.Keyring, []string) {
	b.Helper()
	k, err := apikey.Open(store, settings, apikey.Policy{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	tokens := make([]string, n)
	for i := range tokens {
		made, err := k.Issue(context.Background(), apikey.Operator("acme"), apikey.Issue{Name: "bench", UserID: fmt.Sprint("user", i)})
		if err != nil {
			b.Fatal(err)
		}
		tokens[i] = made.Token
	}
	return k, tokens
}

func verify(b *testing.B, k *apikey.Keyring, token string, want apikey.Reason) apikey.Verdict {
	v, err := k.Verify(context.Background(), token)
	if err != nil || v.Reason != want {
		b.Fatalf("verdict %v, error %v, want %v", v.Reason, err, want)
	}
	return v
}

func BenchmarkVerifyHit(b *testing.B) {
	for _, n := range []int{1, 2_000} {
		k, tokens := issueMany(b, storagetest.NewMemory(), min(n,2000), apikey.Settings{})
		for _, token := range tokens {
			verify(b, k, token, apikey.ReasonNone)
		}
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if v, err := k.Verify(ctx, tokens[i]); err != nil || v.Reason != apikey.ReasonNone {
					b.Fatal(v.Reason, err)
				}
				if i++; i == n {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("keys=%d/parallel", n), func(b *testing.B) {
			b.ReportAllocs()
			var start atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for i := int(start.Add(7919)); pb.Next(); i++ {
					if v, err := k.Verify(ctx, tokens[i%n]); err != nil || v.Reason != apikey.ReasonNone {
						b.Error(v.Reason, err)
					}
				}
			})
		})
	}
}

func BenchmarkRefuseBadChecksum(b *testing.B) {
	k, tokens := issueMany(b, storagetest.NewMemory(), 1, apikey.Settings{})
	token := tokens[0][:len(tokens[0])-1] + "-"
	if token = tokens[0][:40] + "0" + tokens[0][41:]; token == tokens[0] {
		token = tokens[0][:40] + "1" + tokens[0][41:]
	}
	b.ReportAllocs()
	for b.Loop() {
		if v, err := k.Verify(ctx, token); err != nil || v.Reason != apikey.ReasonChecksum {
			b.Fatal(v.Reason, err)
		}
	}
}

func BenchmarkUse(b *testing.B) {
	k, tokens := issueMany(b, storagetest.NewMemory(), 1, apikey.Settings{})
	v := verify(b, k, tokens[0], apikey.ReasonNone)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			k.Use(&v, "192.0.2.7", "curl/8.5.0 (x86_64-pc-linux-gnu)")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			v := v
			for pb.Next() {
				k.Use(&v, "192.0.2.7", "curl/8.5.0 (x86_64-pc-linux-gnu)")
			}
		})
	})
}

func BenchmarkClock(b *testing.B) {
	c := apikey.NewClock()
	for b.Loop() {
		c()
	}
}
