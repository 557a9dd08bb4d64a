// Package caddymodule is every face that Caddy sees: the app, the handlers, the
// authentication provider, the admin routes, the Caddyfile and the commands.
// Storage drivers are loaded by their module id and never imported.
package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/metrics"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

func init() { caddy.RegisterModule(new(App)) }

const (
	appName       = "api_keys"
	defaultDriver = "bolt"
)

// App holds the keys that the handlers `api_key_auth` and `api_key_management`
// and the provider `api_key` work on. It is configured once, however many sites
// use it; without configuration it keeps keys in a file under Caddy's data
// directory.
//
// Configurations that name the same store share it over reloads: nothing is
// closed and opened again, and no use of a key is lost. `caddy validate` and
// `caddy adapt` do not touch the store, and work beside a running server.
type App struct {
	// The storage driver that keeps the keys. Default: `bolt`, a file named
	// `api-keys.db` in Caddy's data directory.
	StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=api_keys.storage inline_key=driver"`

	// The start of new tokens, before their underscore: 1 to 16 letters, digits
	// and inner underscores. Default: `ak`.
	Prefix string `json:"prefix,omitempty"`

	// Prefixes of tokens that were made earlier and are still accepted.
	RetiredPrefixes []string `json:"retired_prefixes,omitempty"`

	// How long a key may live, from when its end is set. Keys are then never
	// without an end. Default: any time.
	MaxTTL caddy.Duration `json:"max_ttl,omitempty"`

	// How long a new key lives when nobody says so. Default: `max_ttl`.
	DefaultTTL caddy.Duration `json:"default_ttl,omitempty"`

	// How many active keys an organization may have. Expired and revoked keys
	// do not count. Default: any number.
	MaxKeysPerOrganization int `json:"max_keys_per_organization,omitempty"`

	// Secrets of at least 16 bytes that go into the digests of keys, so that
	// a stolen store is of no use even for recognising a token. Write them as
	// placeholders, `{file./etc/caddy/pepper}` or `{env.PEPPER}`: what stands
	// here itself is shown by the admin endpoint. The first one is used for new
	// keys. Keys without a pepper stay good and get it at their next use; to
	// change a pepper, put the new one first and keep the old one until the
	// server starts without it. A server whose store needs a pepper that is not
	// here does not start. Default: none.
	Peppers []string `json:"peppers,omitempty"`

	// Secrets under which others have made the `hmac-sha256` hashes of imported
	// keys, by the name that import uses, as placeholders.
	ImportSecrets map[string]string `json:"import_secrets,omitempty"`

	// What is recorded of the use of keys: `full`; `time`, without address and
	// user agent, which are personal data; or `off`. Default: `full`.
	Usage string `json:"usage,omitempty"`

	// How far the time of last use in the store may stay behind while nothing
	// else of it changes. The API is never behind. Takes effect when the store
	// is opened, not by a reload. Default: `1m`.
	UsageResolution caddy.Duration `json:"usage_resolution,omitempty"`

	// How long the record of a key stays after the key was revoked or has
	// expired. Default: for ever.
	Retention caddy.Duration `json:"retention,omitempty"`

	// Who may manage keys on sites: `keys`, the holders of keys, or
	// `operator`, nobody but the operator on the admin endpoint. Default:
	// `keys`.
	Management string `json:"management,omitempty"`

	// How many keys have a time series of their own in the metric
	// `caddy_api_keys_key_requests_total`, by key id. Requests of further keys
	// are counted together under `_other`. Default: 0, no such metric.
	PerKeyMetrics int `json:"per_key_metrics,omitempty"`

	// How many keys are answered from memory; the store may hold any number.
	// Each takes about 140 bytes, and only keys that are in use take any. It is
	// rounded up to a power of two, and takes effect when the store is opened,
	// not by a reload. Default: 131072.
	IndexSize int `json:"index_size,omitempty"`

	ctx     caddy.Context
	logger  *zap.Logger
	events  *caddyevents.App
	metrics *metrics.Metrics
	policy  apikey.Policy
	driver  string
	opener  storage.Driver
	store   *sharedStore // nil until it was acquired
	keyring atomic.Pointer[apikey.Keyring]

	released  bool // by Cleanup
	complaint seldom
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: appName, New: func() caddy.Module { return new(App) }}
}

// Provision reads the configuration. It does not open the store: Caddy provisions
// configurations that it only validates.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger = ctx, ctx.Logger()
	if err := a.readPolicy(); err != nil {
		return err
	}
	if err := a.loadDriver(ctx); err != nil {
		return err
	}
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading the events app: %w", err)
	}
	a.events = events.(*caddyevents.App)
	if a.metrics, err = metrics.Register(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := metrics.RegisterState(ctx.GetMetricsRegistry(), openKeyring); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	a.store, err = acquireStore(a.opener.Identity())
	return err
}

func (a *App) loadDriver(ctx caddy.Context) error {
	a.driver = defaultDriver
	var module any
	var err error
	if a.StorageRaw == nil {
		module, err = ctx.LoadModuleByID(storage.Namespace+"."+defaultDriver, nil)
	} else {
		module, err = ctx.LoadModule(a, "StorageRaw")
	}
	if err != nil {
		return fmt.Errorf("loading the key storage: %w", err)
	}
	opener, ok := module.(storage.Driver)
	if !ok {
		return fmt.Errorf("loading the key storage: module %T is not a storage driver", module)
	}
	a.opener = opener
	a.driver = strings.TrimPrefix(string(module.(caddy.Module).CaddyModule().ID), storage.Namespace+".")
	return nil
}

// Start opens the store. The configuration is not loaded when it cannot be
// opened, and the one before stays in force.
func (a *App) Start() error {
	a.warnOfUnasked()
	_, err := a.Keyring()
	return err
}

// Stop does nothing: requests of this configuration may still be running, and
// the store is released by Cleanup.
func (*App) Stop() error { return nil }

// Cleanup releases the store. The last configuration that does brings all usage
// to it and closes it.
func (a *App) Cleanup() error {
	if a.store == nil || a.released {
		return nil
	}
	a.released = true
	// Whichever configuration is in force after this one has gone, or was
	// refused, decides how long records stay and how many series there are.
	series := 0
	if active, err := activeApp(); err == nil {
		series = active.PerKeyMetrics
		if active.store == a.store {
			if keyring, err := active.Keyring(); err == nil {
				keyring.Enforce()
			}
		}
	}
	a.metrics.KeepKeys(series)
	return a.store.release()
}

// Keyring returns the keys under the policy of this configuration. It opens the
// store if that was not done yet: Caddy starts apps in any order, so that a
// request can come before Start.
func (a *App) Keyring() (*apikey.Keyring, error) {
	// What is remembered of a store that was closed may be outdated by now.
	if keyring := a.keyring.Load(); keyring != nil && !a.store.closed.Load() {
		return keyring, nil
	}
	shared, err := a.store.open(func() (*apikey.Keyring, error) { return a.open(a.ctx) })
	if err != nil {
		return nil, err
	}
	keyring, err := shared.With(a.policy, observer{a})
	if err != nil {
		return nil, err
	}
	switch err := keyring.CheckPeppers(a.ctx); {
	case errors.Is(err, apikey.ErrUnavailable):
		// A store that fails while it is in use must not stop a reload; a key
		// whose pepper is missing is a 503 then.
		a.logger.Error("it could not be found out whether all peppers are configured", zap.Error(err))
	case err != nil:
		return nil, err
	}
	keyring.Enforce()
	a.keyring.Store(keyring)
	return keyring, nil
}

// HoldsToken reports whether text has the shape of a token of ours. While there
// is no Keyring there is nothing to compare with.
func (a *App) HoldsToken(text string) bool {
	keyring := a.keyring.Load()
	return keyring != nil && keyring.HoldsToken(text)
}

// open makes the Keyring that configurations share. It must keep nothing of this
// configuration, which it will outlive.
func (a *App) open(ctx context.Context) (*apikey.Keyring, error) {
	store, err := a.opener.Open(ctx)
	if err != nil {
		return nil, err
	}
	keyring, err := apikey.Open(store, apikey.Settings{Capacity: a.IndexSize, UsageResolution: time.Duration(a.UsageResolution)}, apikey.Policy{}, backgroundObserver{a.metrics, a.driver})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return keyring, nil
}

// complain logs that a key could not be looked up.
func (a *App) complain(err error) {
	if a.complaint.due(time.Now()) {
		a.logger.Error("API keys cannot be checked, requests are answered 503", zap.Error(err))
	}
}

// complaintInterval bounds how often the log says what every request finds out
// again.
const complaintInterval = time.Second

// seldom tells when something may be logged again. The zero value is ready.
type seldom struct{ last atomic.Int64 } // in Unix nanoseconds

func (s *seldom) due(now time.Time) bool {
	last := s.last.Load()
	return now.UnixNano()-last >= int64(complaintInterval) && s.last.CompareAndSwap(last, now.UnixNano())
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
