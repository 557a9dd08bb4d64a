package boltstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

func init() {
	caddy.RegisterModule(new(Driver))
}

// Driver keeps the keys in one file on the local disk. It is the default, and
// needs nothing else to run. The file belongs to one Caddy: several gateways that
// share their keys need another driver.
type Driver struct {
	// The path of the file. A file that does not exist is created without
	// any key, readable by Caddy's user alone. Placeholders such as
	// `{env.STATE_DIRECTORY}` are replaced. A relative path starts at Caddy's
	// working directory. Put it on a local disk, not on a network file system.
	// To change the path of a store, stop Caddy, move the file, and start it
	// again. Default: `api-keys.db` in Caddy's data directory.
	Path string `json:"path,omitempty"`

	path string // Path as it was resolved
}

// CaddyModule implements [caddy.Module].
func (*Driver) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  storage.Namespace + ".bolt",
		New: func() caddy.Module { return new(Driver) },
	}
}

// UnmarshalCaddyfile reads the driver from a Caddyfile:
//
//	storage bolt [<path>]
func (d *Driver) UnmarshalCaddyfile(t *caddyfile.Dispenser) error {
	t.Next() // bolt
	if t.NextArg() {
		d.Path = t.Val()
	}
	if t.NextArg() {
		return t.Errf("unexpected %q: it is storage bolt [<path>], with one path at most", t.Val())
	}
	if t.NextBlock(0) {
		return t.Errf("unrecognized option %q: storage bolt [<path>] has no options but the path", t.Val())
	}
	return nil
}

// Provision resolves the path. It does not look at the file, which may be in use
// by the Caddy beside which this configuration is only being validated.
func (d *Driver) Provision(ctx caddy.Context) error {
	path := d.Path
	if path == "" {
		path = filepath.Join(caddy.AppDataDir(), "api-keys.db")
	}
	replacer, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		replacer = caddy.NewReplacer()
	}
	path, err := replacer.ReplaceOrErr(path, true, true)
	if err != nil {
		return fmt.Errorf("path of the key store: %w", err)
	}
	if path == "" {
		return errors.New("path of the key store: it is empty")
	}
	d.path = canonical(path)
	return nil
}

// Identity implements [storage.Driver].
func (d *Driver) Identity() string { return "bolt:" + d.path }

// Open implements [storage.Driver].
func (d *Driver) Open(context.Context) (apikey.Store, error) {
	s, err := Open(d.path, WithLogger(func() *zap.Logger { return caddy.Log().Named(storage.Namespace + ".bolt") }))
	if err != nil {
		return nil, err // not a nil *Store in an interface that is not nil
	}
	return s, nil
}

// Examine implements [storage.FileDriver].
func (*Driver) Examine(path string, fault func(problem string)) (apikey.Store, error) {
	return Examine(path, fault)
}

// Rewrite implements [storage.FileDriver].
func (*Driver) Rewrite(ctx context.Context, from, to string, how storage.Rewriting, change func(apikey.Store) error) error {
	return Rewrite(ctx, from, to, how, change)
}

var (
	_ storage.FileDriver    = (*Driver)(nil)
	_ caddy.Provisioner     = (*Driver)(nil)
	_ caddyfile.Unmarshaler = (*Driver)(nil)
)
