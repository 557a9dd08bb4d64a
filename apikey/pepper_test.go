package apikey_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

var (
	salt  = []byte("0123456789abcdef")
	spice = []byte(strings.Repeat("a pepper longer than a block. ", 5))
)

func peppered(secrets ...[]byte) apikey.Policy { return apikey.Policy{Peppers: secrets} }

// exported returns the keys of the store by their ids.
func (r *ring) exported() map[apikey.ID]apikey.Exported {
	r.t.Helper()
	all := make(map[apikey.ID]apikey.Exported)
	if err := r.Export(ctx, func(e apikey.Exported) error {
		if _, twice := all[e.Key.ID]; twice {
			r.t.Errorf("key %s is exported twice", e.Key.ID)
		}
		all[e.Key.ID] = e
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return all
}

func sum(secret []byte, text string) string {
	if secret == nil {
		plain := sha256.Sum256([]byte(text))
		return hex.EncodeToString(plain[:])
	}
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

// secretOf is the part of a token that is hashed.
func secretOf(token string) string { return token[len(token)-49 : len(token)-6] }

func TestDigestIsThatOfTheStandardLibrary(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	for name, pepper := range map[string][]byte{
		"none": nil, "16 bytes": salt, "64 bytes": []byte(strings.Repeat("x", 64)), "65 bytes": []byte(strings.Repeat("x", 65)), "long": spice,
	} {
		policy := apikey.Policy{}
		if pepper != nil {
			policy = peppered(pepper)
		}
		made := r.under(policy).issue(operator, apikey.Issue{})
		if e := r.exported()[made.Key.ID]; e.Hash != sum(pepper, secretOf(made.Token)) || (e.Algorithm == "hmac-sha256") != (pepper != nil) || (e.Pepper != "") != (pepper != nil) {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func TestPepperIsAddedAndChangedWithoutKillingAKey(t *testing.T) {
	for _, hot := range []bool{false, true} {
		onEveryStore(t, func(t *testing.T, r *ring) {
			made, idle := r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{})
			for _, step := range []struct {
				policy apikey.Policy
				pepper []byte // of the digest after the next use
			}{{peppered(salt), salt}, {peppered(spice, salt), spice}, {peppered(salt, spice), salt}} {
				if hot {
					r.indexed(made.Token)
				} else {
					r = openRing(t, keepOpen{r.store.Store})
				}
				r = r.under(step.policy)
				r.verify(made.Token, apikey.ReasonNone)
				r.Renew(ctx)
				r.verify(made.Token, apikey.ReasonNone)
				r.verify(wrongSecret(made.Token), apikey.ReasonUnknown)
				if e := r.exported()[made.Key.ID]; e.Hash != sum(step.pepper, secretOf(made.Token)) {
					t.Fatalf("hot %t: the digest was not made anew: %+v", hot, e)
				}
				if err := r.CheckPeppers(ctx); err != nil {
					t.Error(err)
				}
			}
			r.verify(idle.Token, apikey.ReasonNone) // used for the first time now
		})
	}
}

func TestWrongSecretDoesNotGetItsDigestIntoTheStore(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	with := r.under(peppered(salt))
	with.verify(wrongSecret(made.Token), apikey.ReasonUnknown)
	r.indexed(made.Token)
	with.verify(wrongSecret(made.Token), apikey.ReasonUnknown)
	before := dump(t, r.store)
	with.Renew(ctx)
	if !maps.Equal(before, dump(t, r.store)) {
		t.Error("the store has changed")
	}
}

func TestPepperThatIsGoneIsToldAndNeverMakesAKeyUnknown(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		with := r.under(peppered(salt))
		cold, held, revoked := with.issue(operator, apikey.Issue{}), with.issue(operator, apikey.Issue{}), with.issue(operator, apikey.Issue{})
		with.remembered(held.Token)
		for name, policy := range map[string]apikey.Policy{"no pepper": {}, "another": peppered(spice)} {
			without := r.under(policy)
			if err := without.CheckPeppers(ctx); err == nil || errors.Is(err, apikey.ErrUnavailable) || !strings.Contains(err.Error(), "3 keys") {
				t.Errorf("%s: %v", name, err)
			}
			without.verify(cold.Token, apikey.ReasonUnavailable)
			without.verify(wrongSecret(cold.Token), apikey.ReasonUnavailable)
			without.verify(held.Token, apikey.ReasonUnavailable) // the index has it
		}
		if err := r.under(peppered(spice, salt)).CheckPeppers(ctx); err != nil {
			t.Error(err)
		}
		// Whether a key has ended can be told without its pepper.
		r.revoke(operator, revoked.Key.ID)
		if end, err := r.EndOf(ctx, revoked.Key.ID); err != nil || !end.Equal(r.clock.now()) {
			t.Errorf("%v, %v", end, err)
		}
	})
}

func TestPepperOfRevokedKeysOnlyIsNotNeeded(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		with := r.under(peppered(salt))
		cold, held := with.issue(operator, apikey.Issue{}), with.issue(operator, apikey.Issue{})
		with.importAll(foreign("sha256", "imported"))
		imported := with.verify("imported", apikey.ReasonNone).KeyID
		with.Renew(ctx)
		without := r.under(apikey.Policy{})
		for i, id := range []apikey.ID{cold.Key.ID, held.Key.ID, imported} {
			if err := without.CheckPeppers(ctx); err == nil || !strings.Contains(err.Error(), fmt.Sprint(3-i, " keys")) {
				t.Errorf("%d revoked: %v", i, err)
			}
			without.verify("a stranger", apikey.ReasonUnavailable)
			r.revoke(operator, id)
		}
		with.verify(held.Token, apikey.ReasonRevoked)
		with.verify("imported", apikey.ReasonRevoked)
		with.Renew(ctx)
		if err := without.CheckPeppers(ctx); err != nil {
			t.Error(err)
		}
		for _, token := range []string{cold.Token, held.Token, wrongSecret(held.Token), "imported", "a stranger"} {
			without.verify(token, apikey.ReasonUnknown)
		}
		if _, faults := faultsOf(t, r.store); len(faults) > 0 {
			t.Errorf("%q", faults)
		}
		under := r.under(peppered(spice, salt)) // a revoked key gets no new digest
		under.verify(held.Token, apikey.ReasonRevoked)
		under.verify("imported", apikey.ReasonRevoked)
		under.Renew(ctx)
		if err := without.CheckPeppers(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestPeppersThatCannotBeCheckedAreUnavailable(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	r.store.gone.Store(true)
	if err := r.CheckPeppers(ctx); !errors.Is(err, apikey.ErrUnavailable) {
		t.Error(err)
	}
}

func TestDigestThatCannotBeWrittenKillsNoKey(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	r.indexed(made.Token)
	with := r.under(peppered(salt))
	with.verify(made.Token, apikey.ReasonNone)
	r.store.gone.Store(true)
	with.Renew(ctx)
	with.verify(made.Token, apikey.ReasonNone)
	r.store.gone.Store(false)
	with.Renew(ctx)
	if e := r.exported()[made.Key.ID]; e.Algorithm != "hmac-sha256" {
		t.Errorf("not made anew later: %+v", e)
	}
}

func TestCheckWithAPepperAllocatesNothing(t *testing.T) {
	r := openRing(t, storagetest.NewMemory()).under(peppered(spice, salt))
	made := r.issue(operator, apikey.Issue{})
	r.indexed(made.Token)
	if n := testing.AllocsPerRun(1000, func() { r.Verify(ctx, made.Token) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func TestPolicyThatCannotBeKeptIsRefused(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	for name, policy := range map[string]apikey.Policy{
		"bad prefix":         {Prefix: "a b"},
		"bad retired prefix": {RetiredPrefixes: []string{""}},
		"default over max":   {MaxTTL: 1, DefaultTTL: 2},
		"short pepper":       peppered(salt[:15]),
		"empty pepper":       peppered(salt, nil),
	} {
		if _, err := r.With(policy, nil); err == nil {
			t.Errorf("%s is accepted", name)
		} else if strings.Contains(err.Error(), string(salt[:8])) {
			t.Errorf("%s: the pepper is in %v", name, err)
		}
	}
}

func TestUsageHasWhatItsModeSays(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		use := func(mode apikey.UsageMode) {
			ring := r.under(apikey.Policy{Usage: mode})
			v := ring.verify(made.Token, apikey.ReasonNone)
			ring.Use(&v, "192.0.2.1", "agent")
		}
		start := r.clock.now()
		for i, step := range []struct {
			mode apikey.UsageMode
			want apikey.Usage
		}{
			{apikey.UsageOff, apikey.Usage{}},
			{apikey.UsageFull, usage(r.clock.in(time.Second), 1, "192.0.2.1", "agent")},
			{apikey.UsageOff, usage(r.clock.in(time.Second), 1, "192.0.2.1", "agent")},
			{apikey.UsageTime, apikey.Usage{LastUsedAt: r.clock.in(3 * time.Second), Count: 2}},
		} {
			r.clock.set(start.Add(time.Duration(i) * time.Second))
			use(step.mode)
			r.wantUsage(made.Key.ID, step.want)
			r.flush()
			r.wantUsage(made.Key.ID, step.want)
		}
	})
}
