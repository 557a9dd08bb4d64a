package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func TestKeysInTheIndexWorkWhileTheStoreIsGone(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		held := r.issue(operator, apikey.Issue{Scope: apikey.ScopeReadWrite, ExpiresAt: r.clock.in(time.Second)})
		revoked := r.issue(operator, apikey.Issue{})
		unheld := r.issue(operator, apikey.Issue{})
		r.remembered(held.Token)
		r.revoke(operator, revoked.Key.ID)
		r.verify(revoked.Token, apikey.ReasonRevoked)
		r.store.gone.Store(true)

		v := r.verify(held.Token, apikey.ReasonNone)
		r.Use(&v, "192.0.2.1", "ua")
		r.verify(wrongSecret(held.Token), apikey.ReasonUnknown)
		r.verify(flip(held.Token, 30), apikey.ReasonChecksum)
		if v := r.verify(unheld.Token, apikey.ReasonUnavailable); v != (apikey.Verdict{Reason: apikey.ReasonUnavailable}) {
			t.Errorf("%+v", v)
		}
		r.verify(issuedElsewhere(t, "acme"), apikey.ReasonUnavailable) // unknown, perhaps: it cannot be told
		for name, call := range map[string]func() error{
			"issue": func() error {
				made, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
				return errors.Join(err, noToken(made))
			},
			"get":    func() error { _, err := r.Get(ctx, operator, held.Key.ID); return err },
			"list":   func() error { _, err := r.List(ctx, operator, apikey.ListQuery{Limit: 9}); return err },
			"revoke": func() error { _, err := r.Revoke(ctx, operator, held.Key.ID); return err },
			"stats":  func() error { _, err := r.Stats(ctx); return err },
			"flush":  func() error { return r.Flush(ctx) },
		} {
			if err := call(); !errors.Is(err, apikey.ErrUnavailable) || errors.Is(err, apikey.ErrOutcomeUnknown) {
				t.Errorf("%s: %v, want ErrUnavailable", name, err)
			}
		}
		r.verify(held.Token, apikey.ReasonNone) // the vain attempt to revoke it has not hurt it
		r.clock.advance(time.Second)
		r.verify(held.Token, apikey.ReasonExpired)

		r.store.gone.Store(false)
		r.verify(unheld.Token, apikey.ReasonNone)
		slices.Sort(r.seen.faults)
		if got := strings.Join(r.seen.faults, " "); got != "flush get issue list lookup lookup revoke stats" {
			t.Errorf("the observer was told of faults in: %s", got)
		}
	})
}

func noToken(made apikey.Issued) error {
	if made != (apikey.Issued{}) {
		return errors.New("a token was handed out all the same")
	}
	return nil
}

func TestDamagedRecordIsUnavailableAndNeverUnknown(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		for name, spoil := range map[string]func(value []byte) []byte{
			"flipped": func(v []byte) []byte { v[40] ^= 1; return v },
			"cut":     func(v []byte) []byte { return v[:len(v)-1] },
			"empty":   func([]byte) []byte { return []byte{} },
			"zeros":   func(v []byte) []byte { clear(v); return v },
		} {
			made := r.issue(operator, apikey.Issue{Scope: apikey.ScopeReadWrite})
			v := r.verify(made.Token, apikey.ReasonNone)
			rewrite(t, r.store.Store, apikey.TableKeys, made.Key.ID, spoil)
			again := openRing(t, keepOpen{r.store.Store}) // without what the index of the first one holds
			again.verify(made.Token, apikey.ReasonUnavailable)
			again.verify(wrongSecret(made.Token), apikey.ReasonUnavailable)
			for call, err := range map[string]error{
				"get":             second(again.Get(ctx, operator, made.Key.ID)),
				"list":            second(again.List(ctx, operator, apikey.ListQuery{Limit: 100})),
				"revoke":          second(again.Revoke(ctx, operator, made.Key.ID)),
				"issue by itself": second(again.Issue(ctx, v.Principal(), apikey.Issue{Name: "n"})),
			} {
				if !errors.Is(err, apikey.ErrUnavailable) || errors.Is(err, apikey.ErrNotFound) || strings.Contains(err.Error(), made.Token[25:40]) {
					t.Errorf("%s, %s: %v, want ErrUnavailable", name, call, err)
				}
			}
			rewrite(t, r.store.Store, apikey.TableKeys, made.Key.ID, nil)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// keepOpen is a store that somebody else closes.
type keepOpen struct{ apikey.Store }

func (keepOpen) Close() error { return nil }

// rewrite changes a stored value behind the Keyring's back; nil deletes it.
func rewrite(t testing.TB, store apikey.Store, table apikey.Table, id apikey.ID, change func(value []byte) []byte) {
	t.Helper()
	var value []byte
	err := store.View(ctx, func(tx apikey.Reader) error {
		stored, err := tx.Get(table, id[:])
		value = slices.Clone(stored)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	write := func(tx apikey.Tx) error { return tx.Delete(table, id[:]) }
	if change != nil {
		value = change(value)
		write = func(tx apikey.Tx) error { return tx.Put(table, id[:], value) }
	}
	for err = store.Update(ctx, write); errors.Is(err, apikey.ErrOutcomeUnknown); {
		err = store.Update(ctx, write)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeyWithDamagedUsageCanBeRevoked(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	v := r.verify(made.Token, apikey.ReasonNone)
	r.Use(&v, "192.0.2.1", "ua")
	r.flush()
	rewrite(t, r.store, apikey.TableUsage, made.Key.ID, func(v []byte) []byte { v[3] ^= 1; return v })
	if _, err := r.Get(ctx, operator, made.Key.ID); !errors.Is(err, apikey.ErrUnavailable) {
		t.Errorf("get: %v, want ErrUnavailable", err)
	}
	if key := r.revoke(operator, made.Key.ID); !key.Revoked() {
		t.Error("not revoked")
	}
	r.verify(made.Token, apikey.ReasonRevoked)
}

// In an incident, what is damaged must not keep what is not.
func TestDamageOfOneKeyKeepsNoOtherFromBeingListedChangedAndRevoked(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		bobs := r.issue(operator, apikey.Issue{UserID: "bob"})
		r.use(bobs.Token, "192.0.2.1", "ua")
		r.flush()
		r.clock.advance(time.Millisecond) // the usage of keys that come later is in the same record
		alices := []apikey.Issued{r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{}), r.issue(operator, apikey.Issue{})}
		rewrite(t, r.store.Store, apikey.TableUsage, bobs.Key.ID, func([]byte) []byte { return []byte("nonsense") })
		if got := r.list(operator, apikey.Filter{}, 2); len(got) != 4 {
			t.Errorf("with damaged usage %d keys are listed", len(got))
		}
		if got := r.list(operator, apikey.Filter{UnusedSince: r.clock.in(time.Hour)}, 2); len(got) != 0 {
			t.Errorf("%d keys are told to be unused whose usage nobody knows", len(got))
		}
		name := "another"
		if key, err := r.Update(ctx, operator, bobs.Key.ID, apikey.Update{Name: &name}); err != nil || key.Name != name {
			t.Errorf("%v", err)
		}
		if err := r.Export(ctx, func(apikey.Exported) error { return nil }); err != nil {
			t.Error(err)
		}
		if n, err := r.RevokeWhere(ctx, operator, apikey.Filter{UserID: "alice"}); n != 3 || err != nil {
			t.Errorf("with damaged usage %d keys are revoked, %v", n, err)
		}

		carols := r.issue(operator, apikey.Issue{UserID: "carol"})
		rewrite(t, r.store.Store, apikey.TableKeys, alices[1].Key.ID, func([]byte) []byte { return []byte("nonsense") })
		if n, err := r.RevokeWhere(ctx, operator, apikey.Filter{UserID: "carol"}); n != 1 || !errors.Is(err, apikey.ErrUnavailable) {
			t.Errorf("with a damaged key %d are revoked, %v; want one, and to be told", n, err)
		}
		r.verify(carols.Token, apikey.ReasonRevoked)
	})
}

// Somebody may have revoked keys there.
func TestNoKeyIsKnownAnyMoreWhenTheStoreIsSomebodyElses(t *testing.T) {
	for name, notice := range map[string]func(*ring){
		"noticed by a write": func(r *ring) {
			replaced := func() error { return errors.Join(apikey.ErrUnavailable, apikey.ErrReplaced) }
			r.store.before.Store(&replaced)
			if err := r.Flush(ctx); err == nil {
				t.Error("flushed")
			}
		},
		"noticed by a read": func(r *ring) {
			_, _ = r.Get(ctx, operator, apikey.ID{1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRing(t, storagetest.NewMemory())
			made := r.issue(operator, apikey.Issue{})
			r.use(made.Token, "192.0.2.1", "ua")
			r.remembered(made.Token)
			r.store.replaced.Store(true)
			r.verify(made.Token, apikey.ReasonNone) // nobody has noticed
			notice(r)
			r.verify(made.Token, apikey.ReasonUnavailable)
		})
	}
}

func TestEndOfAnExpiredKeyIsKnownWithoutTheStore(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{ExpiresAt: r.clock.in(time.Second)})
		r.remembered(made.Token)
		r.clock.advance(time.Second)
		r.store.gone.Store(true)
		if end, err := r.EndOf(ctx, made.Key.ID); err != nil || !end.Equal(made.Key.ExpiresAt) {
			t.Errorf("%v, %v", end, err)
		}
		r.store.gone.Store(false)
	})
}

// The next use starts the usage over: it is worth less than the key's going on.
func TestDamagedUsageIsReplacedByTheNextUse(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		v := r.verify(made.Token, apikey.ReasonNone)
		r.Use(&v, "192.0.2.1", "ua")
		r.flush()
		rewrite(t, r.store.Store, apikey.TableUsage, made.Key.ID, func([]byte) []byte { return []byte("nonsense") })
		r.Use(&v, "192.0.2.2", "ua")
		r.flush()
		if usage := r.get(operator, made.Key.ID).Usage; usage.Count != 1 || usage.LastUsedIP.String() != "192.0.2.2" {
			t.Errorf("%+v", usage)
		}
	})
}

// What becomes of an update whose answer gets lost.
type fate int

const (
	applied fate = iota
	notApplied
	gone // the store is out of reach
)

// lossy loses the answers of its updates, as a script says; then it works.
type lossy struct {
	apikey.Store
	script []fate
	then   func() // runs before the first update that works
}

func (l *lossy) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if len(l.script) == 0 {
		if l.then != nil {
			then := l.then
			l.then = nil
			then()
		}
		return l.Store.Update(ctx, fn)
	}
	become := l.script[0]
	l.script = l.script[1:]
	switch become {
	case applied:
		if err := l.Store.Update(ctx, fn); err != nil {
			return err
		}
	case gone:
		return fmt.Errorf("%w: gone for a test", apikey.ErrUnavailable)
	}
	return fmt.Errorf("%w: lost for a test", apikey.ErrOutcomeUnknown)
}

var scripts = map[string]struct {
	script []fate
	want   error // nil: it succeeds in the end
}{
	"applied":                            {[]fate{applied}, nil},
	"not applied":                        {[]fate{notApplied}, nil},
	"lost four times":                    {[]fate{notApplied, applied, notApplied, applied}, nil},
	"always lost, applied":               {[]fate{applied, applied, applied, applied, applied}, apikey.ErrOutcomeUnknown},
	"always lost, not applied":           {[]fate{notApplied, notApplied, notApplied, notApplied, notApplied}, apikey.ErrOutcomeUnknown},
	"applied, and then gone":             {[]fate{applied, gone}, apikey.ErrOutcomeUnknown},
	"not applied, and then gone":         {[]fate{notApplied, gone}, apikey.ErrOutcomeUnknown},
	"gone at once, so nothing was tried": {[]fate{gone}, apikey.ErrUnavailable},
}

func TestTokenIsHandedOutOnlyForAKeyThatIsInTheStore(t *testing.T) {
	for name, c := range scripts {
		t.Run(name, func(t *testing.T) {
			inner := storagetest.NewMemory()
			store := &lossy{Store: inner}
			r := openRing(t, store)
			store.script = c.script
			made, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
			if c.want != nil {
				if !errors.Is(err, c.want) || errors.Is(err, apikey.ErrUnavailable) != (c.want == apikey.ErrUnavailable) || made != (apikey.Issued{}) {
					t.Errorf("issued %+v, %v, want %v and no token", made, err, c.want)
				}
				if r.seen.told() != "" {
					t.Errorf("the observer was told: %s", r.seen.told())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if v := openRing(t, keepOpen{inner}).verify(made.Token, apikey.ReasonNone); v.KeyID != made.Key.ID {
				t.Errorf("the store has %+v", v)
			}
			if stats, err := r.Stats(ctx); err != nil || stats.Issued != 1 || r.seen.told() != "issued" {
				t.Errorf("%+v, %v; the observer was told: %s", stats, err, r.seen.told())
			}
		})
	}
}

func TestKeyWhoseRevocationMayBeInForceIsNeverServedFromMemory(t *testing.T) {
	for name, c := range scripts {
		t.Run(name, func(t *testing.T) {
			inner := storagetest.NewMemory()
			store := &lossy{Store: inner}
			r := openRing(t, store)
			made := r.issue(operator, apikey.Issue{})
			r.verify(made.Token, apikey.ReasonNone)
			store.script = c.script
			key, err := r.Revoke(ctx, operator, made.Key.ID)
			if c.want != nil && (!errors.Is(err, c.want) || errors.Is(err, apikey.ErrUnavailable) != (c.want == apikey.ErrUnavailable)) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want == nil && (err != nil || !key.Revoked()) {
				t.Errorf("%+v, %v", key, err)
			}
			stored := openRing(t, keepOpen{inner}).get(operator, made.Key.ID)
			inForce := stored.Revoked()
			if !inForce {
				r.verify(made.Token, apikey.ReasonNone)
			} else {
				r.verify(made.Token, apikey.ReasonRevoked)
			}
			stats, err := r.Stats(ctx)
			if err != nil || inForce != (stats.Revoked == 1) || (c.want == nil) != (r.seen.told() == "issued revoked") {
				t.Errorf("%+v, %v; the observer was told: %s", stats, err, r.seen.told())
			}
		})
	}
}

// The first answer is lost, somebody sees the new key in a list and revokes it,
// and the second run must not bring it back.
func TestIssueThatRunsAgainDoesNotBringBackAKeyRevokedMeanwhile(t *testing.T) {
	inner := storagetest.NewMemory()
	store := &lossy{Store: inner}
	r := openRing(t, store)
	other := openRing(t, keepOpen{inner})
	store.script = []fate{applied}
	store.then = func() {
		page, err := other.List(ctx, operator, apikey.ListQuery{Limit: 10})
		if err != nil || len(page.Keys) != 1 {
			t.Fatalf("%+v, %v", page, err)
		}
		other.revoke(operator, page.Keys[0].ID)
	}
	made, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
	if err != nil {
		t.Fatal(err)
	}
	r.verify(made.Token, apikey.ReasonRevoked)
	if stats, err := r.Stats(ctx); err != nil || stats.Issued != 1 || stats.Revoked != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		made := r.issue(operator, apikey.Issue{})
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if issued, err := r.Issue(ended, operator, apikey.Issue{Name: "n", UserID: "u"}); !errors.Is(err, context.Canceled) || issued != (apikey.Issued{}) {
			t.Errorf("issue: %+v, %v", issued, err)
		}
		if _, err := r.Revoke(ended, operator, made.Key.ID); !errors.Is(err, context.Canceled) {
			t.Errorf("revoke: %v", err)
		}
		r.verify(made.Token, apikey.ReasonNone)
	})
}

func TestClosedKeyringIsUnavailable(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			r := openRing(t, s.open(t))
			held := r.issue(operator, apikey.Issue{})
			unheld := r.issue(operator, apikey.Issue{})
			r.remembered(held.Token)
			if err := r.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			r.verify(unheld.Token, apikey.ReasonUnavailable)
			if _, err := r.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"}); !errors.Is(err, apikey.ErrUnavailable) {
				t.Errorf("issue: %v", err)
			}
			if _, watched := r.store.Store.(apikey.Watcher); watched {
				r.verify(held.Token, apikey.ReasonUnavailable) // nobody says what others do
			} else {
				r.verify(held.Token, apikey.ReasonNone)
			}
			if err := r.Close(); err != nil {
				t.Errorf("closing again: %v", err)
			}
		})
	}
}
