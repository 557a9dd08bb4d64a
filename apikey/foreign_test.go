package apikey_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

var elsewhere = apikey.Policy{ForeignSecrets: map[string][]byte{"old": []byte("the secret of the old gateway")}}

// foreign is the line of an import for a token.
func foreign(algorithm, token string) apikey.Import {
	line := apikey.Import{Algorithm: algorithm, OrganizationID: "acme", Issue: apikey.Issue{Name: "legacy", UserID: "carol"}}
	switch algorithm {
	case "sha256":
		sum := sha256.Sum256([]byte(token))
		line.Hash = sum[:]
	case "sha512":
		sum := sha512.Sum512([]byte(token))
		line.Hash = sum[:]
	case "hmac-sha256":
		h := hmac.New(sha256.New, elsewhere.ForeignSecrets["old"])
		h.Write([]byte(token))
		line.Hash, line.Secret = h.Sum(nil), "old"
	}
	return line
}

func (r *ring) importAll(lines ...apikey.Import) {
	r.t.Helper()
	refused, err := r.ImportMany(ctx, apikey.Operator(""), lines, false)
	if err = errors.Join(append(refused, err)...); err != nil {
		r.t.Fatal(err)
	}
}

var algorithms = []string{"sha256", "sha512", "hmac-sha256"}

var oddTokens = map[string]string{
	"two bytes": "x", "base64": "Zm9vOmJhcg==", "uuid": "0f8fad5b-d9cb-469f-a165-70867728950e", "512 bytes": strings.Repeat("x", 512),
	"every sign": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "almost ours": "ak-" + strings.Repeat("0", 71), "our body": strings.Repeat("0", 71),
}

func TestImportedTokenWorksAsItIs(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		r = r.under(elsewhere)
		for _, algorithm := range algorithms {
			for name, token := range oddTokens {
				token = token[:min(511, len(token))] + algorithm[3:4] // each its own
				r.verify(token, r.strange())
				line := foreign(algorithm, token)
				line.Scope, line.ExpiresAt = apikey.ScopeReadWrite, r.clock.in(time.Hour)
				line.OrganizationID = "org-" + algorithm
				refused, err := r.ImportMany(ctx, apikey.Operator(""), []apikey.Import{line}, false)
				if err != nil {
					t.Fatal(err)
				}
				if errors.Is(refused[0], apikey.ErrDuplicate) {
					t.Fatalf("%s %s: duplicate", algorithm, name)
				}
				v := r.verify(token, apikey.ReasonNone)
				if v.OrganizationID != line.OrganizationID || v.UserID != "carol" || v.Scope != apikey.ScopeReadWrite || !v.ExpiresAt.Equal(r.clock.in(time.Hour)) {
					t.Errorf("%s %s: %+v", algorithm, name, v)
				}
				r.Use(&v, "192.0.2.1", "ua")
				if key := r.get(apikey.Operator(line.OrganizationID), v.KeyID); key.Usage.Count != 1 || key.TokenStart() != "" || key.Name != "legacy" {
					t.Errorf("%+v", key)
				}
				r.revoke(apikey.Operator(line.OrganizationID), v.KeyID)
				r.verify(token, apikey.ReasonRevoked)
			}
		}
	})
}

// strange is what is said of a foreign token that nobody has.
func (r *ring) strange() apikey.Reason {
	if r.keys() == 0 {
		return apikey.ReasonMalformed
	}
	return apikey.ReasonUnknown
}

func TestImportReportsEachLineThatItDoesNotTake(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		r = r.under(elsewhere)
		change := func(do func(*apikey.Import)) apikey.Import {
			line := foreign("sha256", "changed")
			do(&line)
			return line
		}
		r.importAll(foreign("sha256", "there"))
		made := r.issue(operator, apikey.Issue{})
		r.revoke(operator, made.Key.ID)
		lines := []apikey.Import{
			foreign("sha256", "one"), foreign("sha256", "one"), foreign("sha256", "there"), foreign("sha512", "two"), foreign("hmac-sha256", "three"),
			change(func(l *apikey.Import) { l.Algorithm = "bcrypt" }),
			change(func(l *apikey.Import) { l.Hash = l.Hash[1:] }),
			change(func(l *apikey.Import) { l.Hash = nil }),
			change(func(l *apikey.Import) { l.Algorithm = "sha512" }),
			change(func(l *apikey.Import) { l.Algorithm, l.Secret = "hmac-sha256", "unknown" }),
			change(func(l *apikey.Import) { l.Name = "" }),
			change(func(l *apikey.Import) { l.OrganizationID = "" }),
			change(func(l *apikey.Import) { l.UserID = "" }),
			change(func(l *apikey.Import) { l.UserID = made.Token }),
			change(func(l *apikey.Import) { l.ExpiresAt = r.clock.now() }),
		}
		want := []string{"", "dup", "dup", "", "", "algorithm", "hash", "hash", "hash", "secret", "name", "organization", "userId", "userId", "expiresAt"}
		for _, dry := range []bool{true, false} {
			before := dump(t, r.store.Store)
			refused, err := r.ImportMany(ctx, apikey.Operator(""), lines, dry)
			if err != nil || len(refused) != len(lines) {
				t.Fatal(refused, err)
			}
			for i, err := range refused {
				ok := isField(err, want[i])
				switch want[i] {
				case "":
					ok = err == nil
				case "dup":
					ok = errors.Is(err, apikey.ErrDuplicate)
				}
				if !ok {
					t.Errorf("dry %t, line %d: %v, want %q", dry, i, err, want[i])
				}
			}
			if dry && !maps.Equal(before, dump(t, r.store.Store)) {
				t.Error("a dry run wrote")
			}
		}
		if r.keys() != 5 || strings.Count(r.seen.told(), "imported") != 4 {
			t.Errorf("%d keys, told %q", r.keys(), r.seen.told())
		}
		for _, token := range []string{"one", "two", "three"} {
			r.verify(token, apikey.ReasonNone)
		}
		refused, err := r.ImportMany(ctx, apikey.Operator(""), lines[:5], false)
		for i, err := range refused {
			if !errors.Is(err, apikey.ErrDuplicate) {
				t.Errorf("again, line %d: %v", i, err)
			}
		}
		if err != nil || r.keys() != 5 {
			t.Errorf("%d keys after the second import, %v", r.keys(), err)
		}
	})
}

func TestFirstUseOfAnImportedKeyGivesItADigestOfOurs(t *testing.T) {
	for name, secrets := range map[string][][]byte{"without a pepper": nil, "with a pepper": {salt}} {
		onEveryStore(t, func(t *testing.T, r *ring) {
			policy := elsewhere
			policy.Peppers = secrets
			r = r.under(policy)
			var pepper []byte
			if secrets != nil {
				pepper = salt
			}
			for _, algorithm := range algorithms {
				r.importAll(foreign(algorithm, algorithm))
				id := r.verify(algorithm, apikey.ReasonNone).KeyID
				r.Renew(ctx)
				kept := sum(pepper, algorithm)
				if pepper == nil && algorithm == "hmac-sha256" {
					kept = sum(elsewhere.ForeignSecrets["old"], algorithm) // a digest of ours would be weaker
				}
				if got := r.exported()[id].Hash; got != kept {
					t.Errorf("%s, %s: %s", name, algorithm, got)
				}
				for range 3 {
					if v := r.verify(algorithm, apikey.ReasonNone); v.KeyID != id {
						t.Errorf("%s, %s: another key", name, algorithm)
					}
				}
			}
			if err := r.under(apikey.Policy{Peppers: secrets}).CheckPeppers(ctx); err != nil {
				t.Error(err)
			}
			r.remembered("sha256")
			plain := r.under(apikey.Policy{Peppers: secrets}) // without the foreign secret
			for _, algorithm := range algorithms {
				if pepper == nil && algorithm == "hmac-sha256" {
					plain.verify(algorithm, apikey.ReasonUnavailable)
					plain.verify("a stranger", apikey.ReasonUnavailable)
					return
				}
				plain.verify(algorithm, apikey.ReasonNone)
			}
			plain.verify("a stranger", apikey.ReasonUnknown)
		})
	}
}

func TestImportedTokenIsNeverRefusedWhileItsDigestIsMadeAnew(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for round := range 3 {
			token := fmt.Sprint("token ", round)
			var policies []*ring
			for _, peppers := range [][][]byte{{salt, spice}, {spice, salt}} {
				policy := elsewhere
				policy.Peppers = peppers
				policies = append(policies, r.under(policy))
			}
			policies[0].importAll(foreign(algorithms[round%3], token))
			var wg sync.WaitGroup
			done := make(chan struct{})
			for i := range 4 {
				wg.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						if v, err := policies[i%2].Verify(ctx, token); err != nil || !v.Allowed() {
							t.Errorf("%s, %v", v.Reason, err)
							return
						}
					}
				})
			}
			for range 5 { // from one pepper to the other and back
				r.Renew(ctx)
			}
			close(done)
			wg.Wait()
		}
	})
}

func TestTokenImportedByTwoHashesStaysWithOneKey(t *testing.T) {
	r := openRing(t, storagetest.NewMemory()).under(peppered(salt))
	r.importAll(foreign("sha256", "t"), foreign("sha512", "t"))
	id := r.verify("t", apikey.ReasonNone).KeyID
	for range 3 {
		r.Renew(ctx)
		if v := r.verify("t", apikey.ReasonNone); v.KeyID != id {
			t.Fatal("the token went over to the other key")
		}
	}
	r.revoke(operator, id)
	r.verify("t", apikey.ReasonRevoked)
}

func TestForeignTokenCostsALookupOnlyWhereKeysWereImported(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	lookups := func(token string, want apikey.Reason) int64 {
		before := r.seen.lookups.Load()
		r.verify(token, want)
		return r.seen.lookups.Load() - before
	}
	ours := "ak_" + strings.Repeat("x", 60)
	if n := lookups("a stranger", apikey.ReasonMalformed); n != 0 {
		t.Errorf("%d lookups without imported keys", n)
	}
	r.importAll(foreign("sha256", "t"), foreign("sha256", ours))
	r.verify("t", apikey.ReasonNone) // the kinds of digests are read again
	for token, want := range map[string]int64{"a stranger": 1, strings.Repeat("x", 513): 0, ours: 0, "ak_": 0} {
		reason := apikey.ReasonMalformed
		if want == 1 {
			reason = apikey.ReasonUnknown
		}
		if n := lookups(token, reason); n != want {
			t.Errorf("%d lookups for %.20q, want %d", n, token, want)
		}
	}
}

func TestForeignSecretThatIsGoneMakesNobodyUnknown(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		r.under(elsewhere).importAll(foreign("hmac-sha256", "t"), foreign("sha256", "plain"))
		r.verify("t", apikey.ReasonUnavailable)
		r.verify("a stranger", apikey.ReasonUnavailable) // perhaps it is one of them
		r.verify("plain", apikey.ReasonNone)
		r.store.gone.Store(true)
		r.verify("t", apikey.ReasonUnavailable)
		r.store.gone.Store(false)
	})
}

func TestImportedKeyIsRotatedToOneOfOurs(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		r.importAll(foreign("sha256", "t"))
		next, err := r.Rotate(ctx, operator, r.verify("t", apikey.ReasonNone).KeyID, apikey.Rotate{Grace: time.Hour})
		if err != nil || !tokenShape.MatchString(next.Token) {
			t.Fatalf("%+v, %v", next.Key, err)
		}
		r.verify("t", apikey.ReasonNone)
		r.clock.advance(time.Hour)
		r.verify("t", apikey.ReasonExpired)
		r.verify(next.Token, apikey.ReasonNone)
	})
}

func TestExportHasEveryKeyOnce(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		all := make(map[apikey.ID]bool)
		for range 2 {
			made, err := r.IssueMany(ctx, operator, manyIssues(1000))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range made {
				all[m.Key.ID] = true
			}
		}
		if got := r.exported(); len(got) != len(all) {
			t.Errorf("%d keys, want %d", len(got), len(all))
		}
		stop, n := errors.New("stop"), 0
		if err := r.Export(ctx, func(apikey.Exported) error { n++; return stop }); err != stop || n != 1 {
			t.Errorf("%v after %d", err, n)
		}
	})
}

func manyIssues(n int) []apikey.Issue {
	all := make([]apikey.Issue, n)
	for i := range all {
		all[i] = apikey.Issue{Name: "n", UserID: "u"}
	}
	return all
}
