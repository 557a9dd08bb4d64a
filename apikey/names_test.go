package apikey

import (
	"slices"
	"testing"
)

func TestNamesThatOthersRelyOnHaveNotChanged(t *testing.T) {
	var reasons, tables, changes []string
	for _, r := range Reasons() {
		reasons = append(reasons, r.String())
	}
	for _, table := range Tables() {
		tables = append(tables, table.String())
	}
	for _, c := range ChangeKinds() {
		changes = append(changes, c.String())
	}
	for name, c := range map[string]struct{ got, want []string }{
		"reasons": {reasons, []string{
			"none", "no_credential", "ambiguous_credential", "malformed", "bad_checksum", "unknown", "expired", "revoked",
			"insufficient_scope", "organization_not_admitted", "store_unavailable",
		}},
		"tables":  {tables, []string{"keys", "organizations", "usage", "counts", "calls", "foreign"}},
		"changes": {changes, []string{"issued", "updated", "rotated", "revoked", "imported"}},
		"scopes":  {[]string{ScopeRead.String(), ScopeReadWrite.String()}, []string{"read", "read-write"}},
		"beyond":  {[]string{reasonCount.String(), tableCount.String()}, []string{"unknown", "unknown"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s are %q, want %q", name, c.got, c.want)
		}
	}
}

func TestScopeIsReadAsTheContractWritesItAndInNoOtherWay(t *testing.T) {
	for text, want := range map[string]Scope{"read": ScopeRead, "read-write": ScopeReadWrite} {
		if got, ok := ParseScope(text); !ok || got != want {
			t.Errorf("%q is %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "READ", "read ", " read", "write", "read-write,read", "readwrite", "read_write", "none", "admin"} {
		if got, ok := ParseScope(text); ok || got != ScopeRead {
			t.Errorf("%q is %v, %v", text, got, ok)
		}
	}
}
