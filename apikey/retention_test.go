package apikey_test

import (
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// The scan that removes records runs every ten minutes.
const scan = 11 * time.Minute

func TestRecordsOfEndedKeysGoAfterTheRetentionWithAllThatIsTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewMemory()
		k, err := apikey.Open(store, apikey.Settings{Capacity: 1}, apikey.Policy{Retention: 24 * time.Hour, Peppers: [][]byte{salt}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		r := &ring{Keyring: k, t: t, store: &probe{Store: store}, clock: newClock(), seen: &observer{}}
		r.issue(operator, apikey.Issue{Name: "stays"})
		time.Sleep(2 * time.Second)
		before := dump(t, store)

		revoked, expired := r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{ExpiresAt: k.Now().Add(time.Hour)})
		r.importAll(foreign("sha256", "revoked"))
		for _, token := range []string{revoked.Token, expired.Token, "revoked"} {
			v := r.verify(token, apikey.ReasonNone)
			r.Use(&v, "192.0.2.1", "ua")
		}
		r.Renew(ctx)
		imported := r.verify("revoked", apikey.ReasonNone).KeyID
		time.Sleep(time.Hour)
		r.revoke(operator, revoked.Key.ID)
		r.revoke(operator, imported)
		time.Sleep(24*time.Hour - time.Minute)
		if r.keys() != 4 {
			t.Fatalf("%d keys, want all 4: a record went too early", r.keys())
		}
		r.verify(revoked.Token, apikey.ReasonRevoked)
		time.Sleep(scan)
		after := dump(t, store)
		maps.DeleteFunc(after, func(key, value string) bool { return value == "0000000000000000" }) // counts of nothing
		if !maps.Equal(before, after) {
			t.Errorf("left behind: %v, want %v", after, before)
		}
		r.verify(revoked.Token, apikey.ReasonUnknown)
		r.verify(expired.Token, apikey.ReasonUnknown)
		r.verify("revoked", apikey.ReasonMalformed)
		if end, err := k.EndOf(ctx, revoked.Key.ID); err != nil || end.IsZero() {
			t.Errorf("%v, %v: a stream of that key would go on", end, err)
		}
		if err := k.CheckPeppers(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestWallClockThatJumpsAheadRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jump atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }
		store := storagetest.NewMemory()
		k, err := apikey.Open(store, apikey.Settings{Capacity: 1, Clock: clock}, apikey.Policy{Retention: 24 * time.Hour}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		r := &ring{Keyring: k, t: t, store: &probe{Store: store}, clock: newClock(), seen: &observer{}}
		r.issue(operator, apikey.Issue{ExpiresAt: clock().Add(time.Hour)})
		r.revoke(operator, r.issue(operator, apikey.Issue{}).Key.ID)
		jump.Store(int64(1000 * time.Hour))
		time.Sleep(scan)
		if r.keys() != 2 {
			t.Errorf("%d keys, want 2", r.keys())
		}
		jump.Store(0)
		time.Sleep(26 * time.Hour)
		if r.keys() != 0 {
			t.Errorf("%d keys, want none: the time has come", r.keys())
		}
	})
}

func TestWallClockThatIsAheadAtTheStartRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		store := storagetest.NewMemory()
		open := func() *ring {
			k, err := apikey.Open(keepOpen{store}, apikey.Settings{Capacity: 1, Clock: clock}, apikey.Policy{Retention: 24 * time.Hour}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return &ring{Keyring: k, t: t, store: &probe{Store: store}, clock: newClock(), seen: &observer{}}
		}
		r := open()
		r.issue(operator, apikey.Issue{ExpiresAt: clock().Add(time.Hour)})
		r.Close()
		// The system's clock itself is ahead: what the process has for the time at
		// which it was opened, too.
		time.Sleep(1000 * time.Hour)
		ahead.Store(0)
		r = open()
		time.Sleep(time.Minute)
		if r.keys() != 1 {
			t.Error("a key was removed before the clock can have been set")
		}
		ahead.Store(int64(-1000 * time.Hour))
		time.Sleep(scan)
		if r.keys() != 1 {
			t.Error("a key was removed after the clock was set")
		}
		ahead.Store(0)
		time.Sleep(scan)
		if r.keys() != 0 {
			t.Error("a key was not removed when its time had come")
		}
		r.Close()
	})
}

func TestRetentionOfANewConfigurationIsFollowedUnlessItIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		r := &ring{Keyring: k, t: t, store: &probe{}, clock: newClock(), seen: &observer{}}
		short, err := k.With(apikey.Policy{Retention: time.Millisecond}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.revoke(operator, r.issue(operator, apikey.Issue{}).Key.ID)
		synctest.Wait() // the census of the start has found nothing
		time.Sleep(time.Minute)
		short.Enforce()
		synctest.Wait()
		k.Enforce()
		time.Sleep(time.Minute)
		if r.keys() != 1 {
			t.Fatal("a record went by the retention of a configuration that was refused")
		}
		short.Enforce()
		time.Sleep(10 * time.Second)
		if r.keys() != 0 {
			t.Error("the record is still there")
		}
	})
}

func TestWithoutRetentionEveryRecordStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, err := apikey.Open(storagetest.NewMemory(), apikey.Settings{Capacity: 1, FlushInterval: time.Hour}, apikey.Policy{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		r := &ring{Keyring: k, t: t, store: &probe{}, clock: newClock(), seen: &observer{}}
		r.revoke(operator, r.issue(operator, apikey.Issue{}).Key.ID)
		time.Sleep(1000 * time.Hour)
		if r.keys() != 1 {
			t.Errorf("%d keys", r.keys())
		}
	})
}
