package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
)

// mistaken is a module in the namespace of the drivers that is none.
type mistaken struct{}

func init() { caddy.RegisterModule(new(mistaken)) }

func (*mistaken) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "api_keys.storage.mistaken", New: func() caddy.Module { return new(mistaken) }}
}

func TestAppsThatCannotBeAreAnError(t *testing.T) {
	g := start(t, ``, site)
	for app, want := range map[string]string{
		`{"per_key_metrics":-1}`:                   "per_key_metrics is -1",
		`{"index_size":-1}`:                        "index_size is -1",
		`{"prefix":"a b"}`:                         `token prefix "a b"`,
		`{"prefix":"seventeen_letters"}`:           "1 to 16 characters",
		`{"retired_prefixes":[""]}`:                "1 to 16 characters",
		`{"storage":{}}`:                           "driver",
		`{"storage":{"driver":"postgres"}}`:        "unknown module: api_keys.storage.postgres",
		`{"storage":{"driver":"mistaken"}}`:        "is not a storage driver",
		`{"storage":{"driver":"bolt","file":"x"}}`: `unknown field "file"`,
		`{"per_key_metric":1}`:                     `unknown field "per_key_metric"`,
	} {
		err := caddy.Load(fmt.Appendf(nil, `{"admin":{"disabled":true,"config":{"persist":false}},"apps":{"api_keys":%s}}`, app), true)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", app, err, want)
		}
	}
	g.passed(g.send("GET", "/", "", issueInProcess(t).header()))
}

func TestSitesAndServersShareOneStore(t *testing.T) {
	g := start(t, ``, site)
	second := freeAddress(t)
	if err := g.load(``, site+"\n}\nhttp://"+second+" {\n"+site); err != nil {
		t.Fatal(err)
	}
	k := g.issue(reader)
	g.passed(g.send("GET", "/", "", k.header()))
	g.passed(exchange(t, g.client, "GET", "http://"+second+"/", "", k.header()))
	g.revoke(k)
	g.refused(exchange(t, g.client, "GET", "http://"+second+"/", "", k.header()), 401, "invalid_token", invalidToken)
}

func TestValidatingAConfigurationOpensNothing(t *testing.T) {
	g := start(t, ``, site)
	k := g.issue(reader)
	locked := filepath.Join(g.dir, "locked.db")
	lock, err := bolt.Open(locked, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for name, global := range map[string]string{
		"the store that is in use":     ``,
		"a store that is locked":       "api_keys {\nstorage bolt DIR/locked.db\n}",
		"a store that does not exist":  "api_keys {\nstorage bolt DIR/new/store.db\n}",
		"a store that cannot be":       "api_keys {\nstorage bolt DIR\n}",
		"a store that is not a store":  "api_keys {\nstorage bolt DIR/log\n}",
		"the store under another name": "api_keys {\nstorage bolt DIR/caddy/../caddy/api-keys.db\n}",
	} {
		t.Run(name, func(t *testing.T) {
			text, err := g.config(global, site)
			if err != nil {
				t.Fatal(err)
			}
			var config caddy.Config
			if err := json.Unmarshal(text, &config); err != nil {
				t.Fatal(err)
			}
			if err := caddy.Validate(&config); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(g.dir, "new")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something was created: %v", err)
			}
			g := *g
			g.TB = t
			g.passed(g.send("GET", "/", "", k.header()))
			g.passed(g.send("GET", "/", "", g.issue(reader).header()))
		})
	}
}

func TestKeysRevocationsAndUsageSurviveAStop(t *testing.T) {
	g := start(t, ``, site)
	k, revoked := g.issue(reader), g.issueRevoked()
	g.passed(g.send("GET", "/", "", k.header(), "User-Agent: before/1.0"))
	before := g.lookUp(k)
	for range 2 {
		stop(t)
		mustBeFree(t, g.storePath())
		if err := g.load(``, site); err != nil {
			t.Fatal(err)
		}
		after := g.lookUp(k)
		if fmt.Sprint(after.Data) != fmt.Sprint(before.Data) || after.text("lastUsedUserAgent") != "before/1.0" {
			t.Errorf("before %v\nafter  %v", before.Data, after.Data)
		}
	}
	g.passed(g.send("GET", "/", "", k.header()))
	g.refused(g.send("GET", "/", "", revoked.header()), 401, "invalid_token", invalidToken)

	stop(t)
	text, err := os.ReadFile(g.storePath())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []key{k, revoked} {
		if bytes.Contains(text, []byte(secretOf(k.Token))) || bytes.Contains(text, []byte(k.Token[len(k.Token)-20:])) {
			t.Error("the store has the token")
		}
	}
	if info, err := os.Stat(g.storePath()); err != nil || info.Mode() != 0o600 {
		t.Errorf("the store has the mode %v (%v)", info.Mode(), err)
	}
}

func TestPrefixOfNewTokensCanBeChanged(t *testing.T) {
	g := start(t, ``, site)
	old := g.issue(reader)
	if err := g.load("api_keys {\nprefix acme_live\nretired_prefixes ak\n}", site); err != nil {
		t.Fatal(err)
	}
	young := g.issue(reader)
	if !strings.HasPrefix(young.Token, "acme_live_") {
		t.Errorf("the token is %s", young.Token)
	}
	g.passed(g.send("GET", "/", "", old.header()))
	g.passed(g.send("GET", "/", "", young.header()))
	// Whatever has one of our prefixes is ours.
	for _, k := range []key{old, young} {
		if r := g.passed(g.send("GET", "/", "", old.header(), "X-Api-Key: "+k.Token)); r.Header.Get("X-Api-Key") != "" {
			t.Errorf("the upstream received %v", r.Header)
		}
	}
	if err := g.load("api_keys {\nprefix acme_live\n}", site); err != nil {
		t.Fatal(err)
	}
	g.refused(g.send("GET", "/", "", old.header()), 401, "invalid_token", invalidToken)
	g.passed(g.send("GET", "/", "", young.header()))
}

// early is an app that needs keys while Caddy still provisions: requests can come
// before the app that holds them was started.
type early struct{ issued apikey.Issued }

func init() { caddy.RegisterModule(new(early)) }

func (*early) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "early", New: func() caddy.Module { return new(early) }}
}

func (e *early) Provision(ctx caddy.Context) error {
	app, err := ctx.App("api_keys")
	if err != nil {
		return err
	}
	keyring, err := app.(*caddymodule.App).Keyring()
	if err != nil {
		return err
	}
	e.issued, err = keyring.Issue(ctx, apikey.Operator("acme"), apikey.Issue{Name: "early", UserID: "alice"})
	return err
}

func (*early) Start() error { return nil }
func (*early) Stop() error  { return nil }

func TestKeysCanBeUsedBeforeTheirAppWasStarted(t *testing.T) {
	g := start(t, ``, `respond ok`)
	config, err := g.config(``, site)
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte(`"apps":{`), []byte(`"apps":{"early":{},`), 1)
	if err := g.loadJSON(config); err != nil {
		t.Fatal(err)
	}
	app, err := caddy.ActiveContext().App("early")
	if err != nil {
		t.Fatal(err)
	}
	token := app.(*early).issued.Token
	g.passed(g.send("GET", "/", "", "Authorization: Bearer "+token))
	stop(t)
	mustBeFree(t, g.storePath())
}
