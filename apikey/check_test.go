package apikey_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func faultsOf(t testing.TB, store apikey.Store) (checked apikey.Checked, faults []string) {
	t.Helper()
	checked, err := apikey.CheckStore(ctx, store, func(int) {}, func(f apikey.Fault) { faults = append(faults, f.String()) })
	if err != nil {
		t.Fatal(err)
	}
	if checked.Faults != len(faults) {
		t.Errorf("counted %d faults, reported %d", checked.Faults, len(faults))
	}
	return checked, faults
}

// lively does everything to keys that can be done.
func (r *ring) lively() {
	r.t.Helper()
	for i := range 30 {
		by := user(fmt.Sprint("org", i%7), "alice")
		made := r.issue(by, apikey.Issue{Scope: apikey.ScopeReadWrite, ExpiresAt: r.clock.in(time.Duration(i+1) * time.Hour)})
		v := r.verify(made.Token, apikey.ReasonNone)
		r.Use(&v, "192.0.2.1", "test")
		switch i % 3 {
		case 0:
			r.revoke(by, made.Key.ID)
		case 1:
			if _, err := r.Rotate(ctx, by, made.Key.ID, apikey.Rotate{Grace: time.Hour}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	if refused, err := r.ImportMany(ctx, apikey.Operator(""), []apikey.Import{{
		Issue: apikey.Issue{Name: "old", UserID: "carol"}, OrganizationID: "acme", Algorithm: "sha256", Hash: make([]byte, 32),
	}}, false); err != nil || refused[0] != nil {
		r.t.Fatal(err, refused)
	}
	r.flush()
}

func TestWhateverAKeyringDoesLeavesASoundStore(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		r.lively()
		checked, faults := faultsOf(t, r.store)
		if len(faults) > 0 || checked.Keys != 41 || checked.Revoked != 10 {
			t.Errorf("%+v, %q", checked, faults)
		}
	})
}

func TestASoundStoreIsSoundWhileItIsInUse(t *testing.T) {
	r := openRing(t, openBolt(t))
	issueMany(t, r.Keyring, 3000)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				by := user(fmt.Sprint("org", n%3), "alice")
				r.revoke(by, r.issue(by, apikey.Issue{Scope: apikey.ScopeReadWrite}).Key.ID)
			}
		})
	}
	for range 20 {
		if _, faults := faultsOf(t, r.store); len(faults) > 0 {
			t.Errorf("%q", faults)
			break
		}
	}
	close(stop)
	writers.Wait()
}

func TestEveryFaultIsFound(t *testing.T) {
	const acme = "acme"
	put := func(table apikey.Table, key, value []byte) func(apikey.Tx) error {
		return func(tx apikey.Tx) error { return tx.Put(table, key, value) }
	}
	row := func(organization string, id apikey.ID) []byte { return append([]byte(organization+"\x00"), id[:]...) }
	for name, test := range map[string]struct {
		harm func(id, other apikey.ID) func(apikey.Tx) error
		says string
	}{
		"a damaged record": {func(id, _ apikey.ID) func(apikey.Tx) error {
			return func(tx apikey.Tx) error {
				value, err := tx.Get(apikey.TableKeys, id[:])
				if err != nil {
					return err
				}
				value = append([]byte{}, value...)
				value[len(value)/2] ^= 1
				return tx.Put(apikey.TableKeys, id[:], value)
			}
		}, "record does not match its checksum"},
		"a record under another id": {func(id, other apikey.ID) func(apikey.Tx) error {
			return func(tx apikey.Tx) error {
				value, err := tx.Get(apikey.TableKeys, id[:])
				if err != nil {
					return err
				}
				return tx.Put(apikey.TableKeys, other[:], value)
			}
		}, "record does not match its checksum"},
		"a record under no id": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableKeys, []byte("x"), []byte("y"))
		}, "not the id of a key"},
		"a key that is not listed": {func(id, _ apikey.ID) func(apikey.Tx) error {
			return func(tx apikey.Tx) error { return tx.Delete(apikey.TableOrganizations, row(acme, id)) }
		}, "missing in the list"},
		"a list that leads nowhere": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableOrganizations, row(acme, apikey.ID{1}), []byte{1})
		}, "there is no such key"},
		"a list of another's key": {func(id, _ apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableOrganizations, row("globex", id), []byte{1})
		}, "of another organization"},
		"a list of nothing": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableOrganizations, []byte("acme"), []byte{1})
		}, "does not name an organization"},
		"a wrong count of keys": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableCounts, []byte("issued"), []byte("\x00\x00\x00\x00\x00\x00\x00\x07"))
		}, "issued: is 7, and there are 4"},
		"a wrong count of live keys": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableCounts, []byte("live/acme"), []byte("\x00\x00\x00\x00\x00\x00\x00\x07"))
		}, "live/acme: is 7, and there are 3"},
		"a count of nobody's keys": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableCounts, []byte("live/x"), []byte("\x00\x00\x00\x00\x00\x00\x00\x07"))
		}, "an organization that has none"},
		"a count of peppered keys": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableCounts, []byte("pepper/00000001"), []byte("\x00\x00\x00\x00\x00\x00\x00\x01"))
		}, "is 1, and there are 0"},
		"a count that is none": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableCounts, []byte("revoked"), []byte("1"))
		}, "is not a number"},
		"damaged usage": {func(id, _ apikey.ID) func(apikey.Tx) error { return put(apikey.TableUsage, id[:], []byte("xxxxxxxxx")) }, "reading the usage"},
		"a damaged call": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableCalls, []byte("x"), []byte("y"))
		}, "not the record of a call"},
		"a digest that leads nowhere": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return put(apikey.TableForeign, []byte("x"), make([]byte, 16))
		}, "leads to no key"},
		"a digest of another key": {func(id, _ apikey.ID) func(apikey.Tx) error { return put(apikey.TableForeign, []byte("x"), id[:]) }, "of another token"},
		"a digest that is missing": {func(apikey.ID, apikey.ID) func(apikey.Tx) error {
			return func(tx apikey.Tx) error {
				return tx.Delete(apikey.TableForeign, append([]byte{3, 0, 0, 0, 0}, make([]byte, 32)...))
			}
		}, "cannot be found by the digest"},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRing(t, openBolt(t))
			id := r.issue(user(acme, "alice"), apikey.Issue{}).Key.ID
			other := r.issue(user(acme, "alice"), apikey.Issue{}).Key.ID
			r.revoke(apikey.Operator(""), r.issue(user("globex", "eve"), apikey.Issue{}).Key.ID)
			if _, err := r.ImportMany(ctx, apikey.Operator(""), []apikey.Import{{
				Issue: apikey.Issue{Name: "old", UserID: "carol"}, OrganizationID: acme, Algorithm: "sha256", Hash: make([]byte, 32),
			}}, false); err != nil {
				t.Fatal(err)
			}
			if _, faults := faultsOf(t, r.store); len(faults) > 0 {
				t.Fatalf("before: %q", faults)
			}
			if err := r.store.Update(ctx, test.harm(id, other)); err != nil {
				t.Fatal(err)
			}
			_, faults := faultsOf(t, r.store)
			if !strings.Contains(strings.Join(faults, "\n"), test.says) {
				t.Errorf("reported %q, want %q", faults, test.says)
			}
		})
	}
}
