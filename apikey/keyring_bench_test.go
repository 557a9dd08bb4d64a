package apikey_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

const (
	agent  = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	client = "2001:db8:85a3::8a2e:370:7334"
)

// filled is a Keyring whose index has all of its n keys.
func filled(b *testing.B, store apikey.Store, n int) (*apikey.Keyring, []apikey.Issued) {
	b.Helper()
	k, err := apikey.Open(store, apikey.Settings{}, apikey.Policy{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	made := issueMany(b, k, n)
	for _, m := range made {
		if v, err := k.Verify(ctx, m.Token); err != nil || !v.Allowed() {
			b.Fatal(v.Reason, err)
		}
	}
	return k, made
}

func BenchmarkVerifyHit(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		k, made := filled(b, storagetest.NewMemory(), n)
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if v, err := k.Verify(ctx, made[i].Token); err != nil || !v.Allowed() {
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
					if v, err := k.Verify(ctx, made[i%n].Token); err != nil || !v.Allowed() {
						b.Error(v.Reason, err)
					}
				}
			})
		})
	}
}

func BenchmarkVerifyMiss(b *testing.B) {
	store := openBolt(b)
	k, made := filled(b, store, 10_000)
	unknown := apikey.Resum(made[0].Token[:20] + "00000" + made[0].Token[25:68])
	// Known, and never remembered: the secret is another key's.
	other := apikey.Resum(made[5000].Token[:25] + made[0].Token[25:68])
	if _, err := k.Revoke(ctx, operator, made[5000].Key.ID); err != nil {
		b.Fatal(err)
	}
	for name, token := range map[string]string{"unknown": unknown, "wrong secret": other} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if v, err := k.Verify(ctx, token); err != nil || v.Reason != apikey.ReasonUnknown {
					b.Fatal(v.Reason, err)
				}
			}
		})
	}
	b.Run("not in the index", func(b *testing.B) {
		b.ReportAllocs()
		small, err := apikey.Open(keepOpen{store}, apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer small.Close()
		i := 0
		for b.Loop() {
			if v, err := small.Verify(ctx, made[i].Token); err != nil || v.Reason != apikey.ReasonNone && v.Reason != apikey.ReasonRevoked {
				b.Fatal(v.Reason, err)
			}
			if i++; i == len(made) {
				i = 0
			}
		}
		b.ReportMetric(float64(small.IndexStats().Misses)/float64(b.N), "misses/op")
	})
}

func BenchmarkRefuseBadChecksum(b *testing.B) {
	k, made := filled(b, storagetest.NewMemory(), 1)
	token := flip(made[0].Token, 40)
	b.ReportAllocs()
	for b.Loop() {
		if v, err := k.Verify(ctx, token); err != nil || v.Reason != apikey.ReasonChecksum {
			b.Fatal(v.Reason, err)
		}
	}
}

func BenchmarkUse(b *testing.B) {
	k, made := filled(b, storagetest.NewMemory(), 2)
	b.Run("one key", func(b *testing.B) {
		v, _ := k.Verify(ctx, made[0].Token)
		b.ReportAllocs()
		for b.Loop() {
			k.Use(&v, client, agent)
		}
	})
	b.Run("one key/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			v, _ := k.Verify(ctx, made[0].Token)
			for pb.Next() {
				k.Use(&v, client, agent)
			}
		})
	})
	b.Run("keys of their own/parallel", func(b *testing.B) {
		b.ReportAllocs()
		var start atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			v, _ := k.Verify(ctx, made[start.Add(1)%2].Token)
			for pb.Next() {
				k.Use(&v, client, agent)
			}
		})
	})
}

// BenchmarkFlush measures what it costs to bring a use to the store: of few keys
// among those that were used, as in a second of a gateway, and of all.
func BenchmarkFlush(b *testing.B) {
	const keys = 100_000
	k, made := filled(b, openBolt(b), keys)
	verdicts := make([]apikey.Verdict, keys)
	use := func(i int) {
		v := &verdicts[i]
		var err error
		if *v, err = k.Verify(ctx, made[i].Token); err != nil || !v.Allowed() {
			b.Fatal(v.Reason, err)
		}
		k.Use(v, "192.0.2.1", "curl/8.5.0")
	}
	flush := func() {
		if err := k.Flush(ctx); err != nil {
			b.Fatal(err)
		}
	}
	for i := range made {
		use(i)
	}
	flush()
	for _, uses := range []int{1_000, 10_000, keys} {
		b.Run(fmt.Sprintf("uses=%d", uses), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for _, i := range rand.Perm(keys)[:uses] {
					use(i)
				}
				b.StartTimer()
				flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*uses), "ns/use")
		})
	}
}

func BenchmarkClock(b *testing.B) {
	now := apikey.NewClock()
	for b.Loop() {
		now()
	}
}
