package apikey_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// pair is two gateways of one cluster. It runs in a bubble, where Wait returns
// when every change has been reported and heeded.
func pair(t *testing.T) (one, other *ring, gateway *storagetest.Gateway) {
	t.Helper()
	cluster := storagetest.NewCluster(storagetest.NewMemory())
	gateway = cluster.Gateway()
	one, other = openRing(t, gateway), openRing(t, cluster.Gateway())
	synctest.Wait()
	return one, other, gateway
}

// fromIndex fails the test unless the verdict came without the store.
func (r *ring) fromIndex(token string, want apikey.Reason) {
	r.t.Helper()
	before := r.seen.lookups.Load()
	if r.verify(token, want); r.seen.lookups.Load() != before {
		r.t.Fatal("the store was asked for a key that the index has")
	}
}

// fromStore fails the test unless the store was asked.
func (r *ring) fromStore(token string, want apikey.Reason) {
	r.t.Helper()
	before := r.seen.lookups.Load()
	if r.verify(token, want); r.seen.lookups.Load() == before {
		r.t.Fatal("the store was not asked")
	}
}

func TestKeyRevokedElsewhereIsRefusedWhenTheChangeIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other, _ := pair(t)
		made := one.issue(operator, apikey.Issue{})
		stays := other.issue(operator, apikey.Issue{})
		synctest.Wait()
		for _, r := range []*ring{one, other} {
			for _, token := range []string{made.Token, stays.Token} {
				r.fromStore(token, apikey.ReasonNone)
				r.fromIndex(token, apikey.ReasonNone)
			}
		}
		other.revoke(operator, made.Key.ID)
		other.verify(made.Token, apikey.ReasonRevoked) // here at once
		synctest.Wait()
		one.fromStore(made.Token, apikey.ReasonRevoked)
		one.fromIndex(made.Token, apikey.ReasonRevoked)
		one.fromIndex(stays.Token, apikey.ReasonNone) // and nothing else was forgotten
		one.store.gone.Store(true)
		one.verify(made.Token, apikey.ReasonRevoked)
	})
}

// deaf is a store whose watch has not reported yet what others did.
type deaf struct{ apikey.Store }

func (deaf) Watch(ctx context.Context, synced func(), _ func(apikey.Table, []byte)) error {
	synced()
	<-ctx.Done()
	return ctx.Err()
}

// Revoking a key that another gateway has revoked changes nothing in the store,
// but it must end the key here too.
func TestKeyRevokedElsewhereIsRefusedAfterRevokingItHereToo(t *testing.T) {
	store := storagetest.NewMemory()
	one, other := openRing(t, deaf{keepOpen{store}}), openRing(t, store)
	made := one.issue(operator, apikey.Issue{})
	one.indexed(made.Token)
	other.revoke(operator, made.Key.ID)
	one.fromIndex(made.Token, apikey.ReasonNone) // it cannot know
	one.revoke(operator, made.Key.ID)
	one.verify(made.Token, apikey.ReasonRevoked)
}

func TestEveryCheckAsksTheStoreWhileTheWatchIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other, gateway := pair(t)
		revoked, stays := one.issue(operator, apikey.Issue{}), one.issue(operator, apikey.Issue{})
		synctest.Wait()
		for _, token := range []string{revoked.Token, stays.Token} {
			one.fromStore(token, apikey.ReasonNone)
			one.fromIndex(token, apikey.ReasonNone)
		}

		gateway.LoseTrack()
		synctest.Wait()
		other.revoke(operator, revoked.Key.ID)
		for range 3 {
			one.fromStore(stays.Token, apikey.ReasonNone)
			one.fromStore(revoked.Token, apikey.ReasonRevoked)
		}
		one.store.gone.Store(true) // what cannot be decided is not let in
		one.verify(stays.Token, apikey.ReasonUnavailable)
		one.verify(revoked.Token, apikey.ReasonUnavailable)
		one.store.gone.Store(false)

		time.Sleep(2 * time.Second) // in a bubble: until the watch is back
		synctest.Wait()
		one.fromStore(stays.Token, apikey.ReasonNone)
		one.fromIndex(stays.Token, apikey.ReasonNone)
		one.verify(revoked.Token, apikey.ReasonRevoked)
		other.revoke(operator, stays.Key.ID)
		synctest.Wait()
		one.verify(stays.Token, apikey.ReasonRevoked)
	})
}

// A use while nothing may be remembered counts all the same.
func TestFirstKeyThatIsImportedElsewhereIsFoundWhileTheWatchIsLostAndAfterwards(t *testing.T) {
	for name, unnoticed := range map[string]bool{"while it is lost": false, "when it is back": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, other, gateway := pair(t)
				one.verify("token", apikey.ReasonMalformed)
				gateway.LoseTrack()
				synctest.Wait()
				other.importAll(foreign("sha256", "token"))
				if unnoticed {
					time.Sleep(2 * time.Second) // in a bubble: until the watch is back
					synctest.Wait()
				}
				one.verify("token", apikey.ReasonNone)
			})
		})
	}
}

func TestUsesAreCountedWhileTheWatchIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other, gateway := pair(t)
		made := one.issue(operator, apikey.Issue{})
		synctest.Wait()
		use := func(r *ring, address string) {
			r.clock.advance(time.Second)
			v := r.verify(made.Token, apikey.ReasonNone)
			r.Use(&v, address, "ua")
		}
		use(one, "192.0.2.1")
		gateway.LoseTrack()
		synctest.Wait()
		use(one, "192.0.2.2")
		use(one, "192.0.2.3")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		use(one, "192.0.2.4")
		if usage := one.get(operator, made.Key.ID).Usage; usage.Count != 4 || usage.LastUsedIP.String() != "192.0.2.4" {
			t.Errorf("before the flush: %+v", usage)
		}
		one.flush()
		for range 10 {
			use(other, "192.0.2.5")
		}
		other.flush()
		for _, r := range []*ring{one, other} {
			if usage := r.get(operator, made.Key.ID).Usage; usage.Count != 14 || usage.LastUsedIP.String() != "192.0.2.5" || !usage.LastUsedAt.Equal(other.clock.now()) {
				t.Errorf("after the flush: %+v", usage)
			}
		}
	})
}

// The order of two gateways' flushes is not that of their requests.
func TestUsageOfTwoGatewaysAddsUpAndNeverGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other, _ := pair(t)
		made := one.issue(operator, apikey.Issue{})
		synctest.Wait()
		early := one.verify(made.Token, apikey.ReasonNone)
		other.clock.advance(time.Minute)
		late := other.verify(made.Token, apikey.ReasonNone)
		one.Use(&early, "192.0.2.1", "early")
		other.Use(&late, "192.0.2.2", "late")
		other.flush()
		one.flush()
		usage := one.get(operator, made.Key.ID).Usage
		if usage.Count != 2 || !usage.LastUsedAt.Equal(other.clock.now()) || usage.LastUsedIP.String() != "192.0.2.2" || usage.LastUsedUserAgent != "late" {
			t.Errorf("%+v", usage)
		}
	})
}
