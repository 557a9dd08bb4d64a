package apikey_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestOnlyActiveKeysCountAgainstTheQuota(t *testing.T) {
	onEveryStore(t, func(t *testing.T, plain *ring) {
		r := plain.under(apikey.Policy{MaxKeys: 3})
		full := func() {
			t.Helper()
			if _, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"}); !errors.Is(err, apikey.ErrQuota) {
				t.Errorf("%v, want ErrQuota", err)
			}
		}
		revoked := r.issue(operator, apikey.Issue{})
		expired := r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Second)})
		r.issue(operator, apikey.Issue{})
		full()
		if _, err := r.IssueMany(ctx, apikey.Operator("globex"), slices.Repeat([]apikey.Issue{{Name: "n", UserID: "u"}}, 4)); !errors.Is(err, apikey.ErrQuota) {
			t.Errorf("four keys at once: %v", err)
		}
		r.issue(apikey.Operator("globex"), apikey.Issue{}) // has its own
		r.revoke(operator, revoked.Key.ID)
		r.issue(operator, apikey.Issue{})
		full()
		r.clock.advance(time.Second)
		r.issue(operator, apikey.Issue{})
		full()
		// A key that has expired cannot come back past the quota.
		if _, err := r.Update(ctx, operator, expired.Key.ID, apikey.Update{ExpiresAt: new(time.Time)}); !errors.Is(err, apikey.ErrQuota) {
			t.Errorf("brought back: %v, want ErrQuota", err)
		}
		plain.verify(expired.Token, apikey.ReasonExpired)
		if _, err := plain.Update(ctx, operator, expired.Key.ID, apikey.Update{ExpiresAt: new(time.Time)}); err != nil {
			t.Errorf("without a quota: %v", err)
		}
	})
}

func TestWholeFleetIsRotatedAtTheQuotaAndNoMore(t *testing.T) {
	onEveryStore(t, func(t *testing.T, plain *ring) {
		r := plain.under(apikey.Policy{MaxKeys: 3})
		var next []apikey.Issued
		for _, old := range []apikey.Issued{r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{})} {
			made, err := r.Rotate(ctx, operator, old.Key.ID, apikey.Rotate{Grace: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			next = append(next, made)
		}
		if _, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"}); !errors.Is(err, apikey.ErrQuota) {
			t.Errorf("one more: %v", err)
		}
		if _, err := r.Rotate(ctx, operator, next[0].Key.ID, apikey.Rotate{Grace: time.Hour}); !errors.Is(err, apikey.ErrQuota) {
			t.Errorf("rotated on: %v, or a grace would be a way past the quota", err)
		}
		if _, err := r.Rotate(ctx, operator, next[0].Key.ID, apikey.Rotate{}); err != nil {
			t.Errorf("rotated on without grace: %v", err)
		}
		r.clock.advance(time.Hour)
		if _, err := r.Rotate(ctx, operator, next[1].Key.ID, apikey.Rotate{Grace: time.Hour}); err != nil {
			t.Errorf("rotated on after the grace: %v", err)
		}
	})
}

func TestManyWhoIssueAtOnceNeverPassTheQuota(t *testing.T) {
	onEveryStore(t, func(t *testing.T, plain *ring) {
		r := plain.under(apikey.Policy{MaxKeys: 10})
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				_, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
				if err != nil && !errors.Is(err, apikey.ErrQuota) && !errors.Is(err, apikey.ErrOutcomeUnknown) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if r.keys() != 10 {
			t.Errorf("%d keys, want 10", r.keys())
		}
	})
}
