package boltstore_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/storage"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// load loads and provisions the driver as Caddy does.
func load(t *testing.T, config any) (storage.Driver, error) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	module, err := ctx.LoadModuleByID("api_keys.storage.bolt", raw)
	if err != nil {
		return nil, err
	}
	return module.(storage.Driver), nil
}

func mustLoad(t *testing.T, config any) storage.Driver {
	t.Helper()
	d, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

type config map[string]string

func TestDriverOpensTheStoreThatItsIdentityNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	d := mustLoad(t, config{"path": path})
	if want := "bolt:" + path; d.Identity() != want {
		t.Errorf("identity %q, want %q", d.Identity(), want)
	}
	s, err := d.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, "a", "1")
	want(t, s, "a", "1")
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestDriverThatCannotOpenReturnsNoStore(t *testing.T) {
	d := mustLoad(t, config{"path": t.TempDir()})
	if s, err := d.Open(t.Context()); s != nil || err == nil {
		t.Errorf("opening a directory returned %v, %v", s, err)
	}
}

func TestDriverTouchesNothingBeforeOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "keys.db")
	mustLoad(t, config{"path": path}).Identity()
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("provisioning left %v", entries)
	}
	s := open(t, path)
	mustLoad(t, config{"path": path}).Identity() // beside a server that runs
	put(t, s, "a", "1")
}

func TestEverySpellingOfAPathHasOneIdentityBeforeAndAfterTheFileExists(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("BOLTSTORE_TEST_DIR", dir)
	spellings := []string{
		dir + "/real/sub/keys.db",
		dir + "/link/sub/keys.db",
		dir + "//real/./sub/../sub/keys.db",
		"real/sub/keys.db",
		"./link/sub/keys.db",
		"{env.BOLTSTORE_TEST_DIR}/real/sub/keys.db",
	}
	identities := func() {
		for _, path := range spellings {
			if got, want := mustLoad(t, config{"path": path}).Identity(), "bolt:"+spellings[0]; got != want {
				t.Errorf("%s has identity %q, want %q", path, got, want)
			}
		}
	}
	identities()
	s := open(t, spellings[0])
	identities()
	if err := os.Symlink("real/sub/keys.db", "keys.db"); err != nil {
		t.Fatal(err)
	}
	spellings = append(spellings, "keys.db")
	identities()
	s.Close()
}

func TestDefaultPathIsInTheDataDirectoryOfCaddy(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_DATA_HOME", dir)
	if got, want := mustLoad(t, config{}).Identity(), "bolt:"+filepath.Join(dir, "caddy", "api-keys.db"); got != want {
		t.Errorf("identity %q, want %q", got, want)
	}
}

func TestPathsThatLeadNowhereAreRefused(t *testing.T) {
	t.Setenv("BOLTSTORE_TEST_EMPTY", "")
	for name, c := range map[string]any{
		"an unset placeholder":   config{"path": "{env.BOLTSTORE_TEST_UNSET}/keys.db"},
		"an empty placeholder":   config{"path": "{env.BOLTSTORE_TEST_EMPTY}"},
		"an unknown placeholder": config{"path": "{no.such.placeholder}"},
		"an unknown field":       config{"file": "keys.db"},
	} {
		if _, err := load(t, c); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ input, want, says string }{
		{input: "bolt", want: ""},
		{input: "bolt /var/lib/keys.db", want: "/var/lib/keys.db"},
		{input: "bolt {env.HOME}/keys.db", want: "{env.HOME}/keys.db"},
		{input: "bolt a b", says: "storage bolt [<path>]"},
		{input: "bolt a {\n\tsync off\n}", says: `unrecognized option "sync"`},
		{input: "bolt {\n\tpath a\n}", says: "storage bolt [<path>]"},
	} {
		d := caddyfile.NewTestDispenser(c.input)
		d.Next()
		unmarshaler, err := caddyfile.UnmarshalModule(d, "api_keys.storage.bolt")
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: %v; want an error that says %q", c.input, err, c.says)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.input, err)
			continue
		}
		if got := unmarshaler.(*boltstore.Driver).Path; got != c.want {
			t.Errorf("%q: path %q, want %q", c.input, got, c.want)
		}
	}
}
