package apikey_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

// refused imports lines and returns what is said of each.
func (r *ring) refused(dry bool, lines ...apikey.Import) []error {
	r.t.Helper()
	refused, err := r.ImportMany(ctx, apikey.Operator(""), lines, dry)
	if err != nil || len(refused) != len(lines) {
		r.t.Fatal(refused, err)
	}
	return refused
}

func everyWay(prefix string) (lines []apikey.Import) {
	for _, algorithm := range algorithms {
		lines = append(lines, foreign(algorithm, prefix+algorithm))
	}
	return lines
}

func TestSecondImportIsKnownForOneWhateverBecameOfTheDigest(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		lines := everyWay("")
		r.under(elsewhere).importAll(lines...)
		for _, peppers := range [][][]byte{nil, {salt}, {spice, salt}, {spice}} {
			policy := elsewhere
			policy.Peppers = peppers
			r := r.under(policy)
			for _, algorithm := range algorithms {
				r.verify(algorithm, apikey.ReasonNone)
			}
			r.Renew(ctx)
			for _, dry := range []bool{true, false} {
				for i, err := range r.refused(dry, lines...) {
					if !errors.Is(err, apikey.ErrDuplicate) {
						t.Errorf("%d peppers, %s: %v, want a duplicate", len(peppers), algorithms[i], err)
					}
				}
			}
			if n := r.keys(); n != len(lines) {
				t.Fatalf("%d keys, want %d", n, len(lines))
			}
			if _, faults := faultsOf(t, r.store); len(faults) > 0 {
				t.Errorf("%d peppers: %q", len(peppers), faults)
			}
		}
	})
}

func TestTraceOfAnImportTellsNothingOfTheToken(t *testing.T) {
	policy := elsewhere
	policy.Peppers = [][]byte{salt}
	r := openRing(t, storagetest.NewMemory()).under(policy)
	r.importAll(everyWay("")...)
	for _, algorithm := range algorithms {
		r.verify(algorithm, apikey.ReasonNone)
	}
	r.Renew(ctx)
	all := fmt.Sprint(dump(t, r.store))
	for _, line := range everyWay("") {
		if strings.Contains(all, fmt.Sprintf("%x", line.Hash[:32])) {
			t.Errorf("the imported %s is still in the store", line.Algorithm)
		}
	}
}

func TestImportedKeyThatTheIndexKnowsNeedsNoStore(t *testing.T) {
	for name, peppers := range map[string][][]byte{"without a pepper": nil, "with peppers": {spice, salt}} {
		onEveryStore(t, func(t *testing.T, r *ring) {
			policy := elsewhere
			policy.Peppers = peppers
			r = r.under(policy)
			r.importAll(everyWay("")...)
			for _, algorithm := range algorithms {
				r.verify(algorithm, apikey.ReasonNone)
			}
			r.Renew(ctx)
			for _, algorithm := range algorithms {
				r.remembered(algorithm)
			}
			r.importAll(foreign("sha256", "another")) // what is known of the digests has to be read again
			r.store.settle(t)
			r.store.gone.Store(true)
			lookups := r.seen.lookups.Load()
			for _, algorithm := range algorithms {
				if v := r.verify(algorithm, apikey.ReasonNone); v.UserID != "carol" || v.OrganizationID != "acme" {
					t.Errorf("%s, %s: %+v", name, algorithm, v)
				}
			}
			if n := r.seen.lookups.Load() - lookups; n != 0 {
				t.Errorf("%s: %d lookups", name, n)
			}
			r.verify("another", apikey.ReasonUnavailable)
			r.verify("a stranger", apikey.ReasonUnavailable)
			r.store.gone.Store(false)
			for _, algorithm := range algorithms {
				r.revoke(operator, r.verify(algorithm, apikey.ReasonNone).KeyID)
				r.verify(algorithm, apikey.ReasonRevoked)
			}
		})
	}
}

func TestCheckOfAnImportedKeyAllocatesNothing(t *testing.T) {
	for name, peppers := range map[string][][]byte{"without a pepper": nil, "with peppers": {spice, salt}} {
		policy := elsewhere
		policy.Peppers = peppers
		r := openRing(t, storagetest.NewMemory()).under(policy)
		r.importAll(everyWay("")...)
		for _, algorithm := range algorithms {
			r.verify(algorithm, apikey.ReasonNone)
			r.Renew(ctx)
			r.indexed(algorithm)
			if n := testing.AllocsPerRun(1000, func() { r.Verify(ctx, algorithm) }); n != 0 && !raceEnabled {
				t.Errorf("%s, %s: %v allocations", name, algorithm, n)
			}
		}
	}
}

func TestImportTakesNoMoreThanTheQuotaAllows(t *testing.T) {
	onEveryStore(t, func(t *testing.T, plain *ring) {
		r := plain.under(apikey.Policy{MaxKeys: 4})
		r.issue(operator, apikey.Issue{})
		r.revoke(operator, r.issue(operator, apikey.Issue{}).Key.ID)
		r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Second)})
		r.clock.advance(time.Second)
		line := func(organization, token string) apikey.Import {
			line := foreign("sha256", token)
			line.OrganizationID = organization
			return line
		}
		lines := []apikey.Import{
			line("acme", "one"), line("acme", "one"), line("globex", "a"), line("acme", "two"), line("acme", "three"),
			line("acme", "four"), line("globex", "b"), line("acme", "four"), line("acme", "three"),
		}
		want := []error{nil, apikey.ErrDuplicate, nil, nil, nil, apikey.ErrQuota, nil, apikey.ErrQuota, apikey.ErrDuplicate}
		for _, dry := range []bool{true, false} {
			if room, err := r.Room(ctx, []string{"acme", "globex", "acme"}); err != nil || !maps.Equal(room, map[string]int{"acme": 3, "globex": 4}) {
				t.Errorf("room for %v, %v", room, err)
			}
			for i, err := range r.refused(dry, lines...) {
				if !errors.Is(err, want[i]) {
					t.Errorf("dry %t, line %d: %v, want %v", dry, i, err, want[i])
				}
			}
		}
		if room, err := r.Room(ctx, []string{"acme", "globex"}); err != nil || !maps.Equal(room, map[string]int{"acme": 0, "globex": 2}) {
			t.Errorf("room for %v afterwards, %v", room, err)
		}
		if n := r.keys(); n != 8 {
			t.Errorf("%d keys, want 8", n)
		}
		r.verify("four", apikey.ReasonUnknown)
		if err := r.refused(false, line("acme", "four"))[0]; !errors.Is(err, apikey.ErrQuota) {
			t.Errorf("one more: %v", err)
		}
		if room, err := plain.Room(ctx, []string{"acme"}); err != nil || room != nil {
			t.Errorf("without a quota: %v, %v", room, err)
		}
	})
}

func TestImportIsOfTheOperatorWhoAskedForIt(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	if _, err := r.ImportMany(ctx, user("acme", "alice"), []apikey.Import{foreign("sha256", "t")}, false); !errors.Is(err, apikey.ErrScope) {
		t.Errorf("alice: %v", err)
	}
	by := apikey.Operator("")
	by.Address, by.RequestID = "192.0.2.1", "req-1"
	if _, err := r.ImportMany(ctx, by, []apikey.Import{foreign("sha256", "t")}, false); err != nil {
		t.Fatal(err)
	}
	by.OrganizationID = "acme"
	if len(r.seen.changes) != 1 || r.seen.changes[0].By != by {
		t.Errorf("told %+v", r.seen.changes)
	}
}
