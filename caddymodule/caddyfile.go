package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("api_keys", parseGlobalOption)
	httpcaddyfile.RegisterHandlerDirective("api_key_auth", parseGate)
	httpcaddyfile.RegisterHandlerDirective("api_key_management", parseMount)
	httpcaddyfile.RegisterDirective("api_keys", parseSite)
	// The one that is registered last comes first.
	for _, directive := range []string{"api_key_auth", "api_key_management", "api_keys"} {
		httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.After, "forward_auth")
	}
}

// words are the subdirectives of a block, by name.
type words map[string]func(*caddyfile.Dispenser) error

// parse reads a block. A word that is not known is an error that names those
// that are: a typo must not leave a door open.
func (w words) parse(d *caddyfile.Dispenser) error {
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		parse, ok := w[d.Val()]
		if !ok {
			return d.Errf("unknown subdirective %q; known are %s", d.Val(), strings.Join(slices.Sorted(maps.Keys(w)), ", "))
		}
		if err := parse(d); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the app from the global option:
//
//	api_keys {
//		storage          <driver> [<arguments...>]
//		prefix           <prefix>
//		retired_prefixes <prefix...>
//		per_key_metrics  <max>
//		index_size       <keys>
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return words{
		"storage": func(d *caddyfile.Dispenser) error {
			if a.StorageRaw != nil {
				return d.Err("storage is given twice")
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			name := d.Val()
			driver, err := caddyfile.UnmarshalModule(d, storage.Namespace+"."+name)
			if err != nil {
				return err
			}
			a.StorageRaw = caddyconfig.JSONModuleObject(driver, "driver", name, nil)
			return nil
		},
		"prefix":           one(&a.Prefix),
		"retired_prefixes": many(&a.RetiredPrefixes),
		"per_key_metrics":  number(&a.PerKeyMetrics),
		"index_size":       number(&a.IndexSize),
	}.parse(d)
}

// UnmarshalCaddyfile sets up the handler from its directive:
//
//	api_key_auth [<matcher>] {
//		organization       <id...>
//		forward_credential
//		identity_header    key_id|organization_id|user_id|service_account_id|scope <name>
//		realm              <realm>
//	}
func (g *Gate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return g.words().parse(d)
}

func (g *Gate) words() words {
	return words{
		"organization":       many(&g.Organizations),
		"forward_credential": flag(&g.ForwardCredential),
		"realm":              one(&g.Realm),
		"identity_header": func(d *caddyfile.Dispenser) error {
			var fact, header string
			if !d.AllArgs(&fact, &header) {
				return d.ArgErr()
			}
			if g.IdentityHeaders == nil {
				g.IdentityHeaders = make(map[string]string)
			}
			if _, ok := g.IdentityHeaders[fact]; ok {
				return d.Errf("identity_header %s is given twice", fact)
			}
			g.IdentityHeaders[fact] = header
			return nil
		},
	}
}

// UnmarshalCaddyfile sets up the handler from its directive:
//
//	api_key_management [<matcher>] {
//		path         <path>
//		organization <id...>
//		realm        <realm>
//	}
func (m *Mount) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return words{"path": one(&m.Path), "organization": many(&m.Organizations), "realm": one(&m.Realm)}.parse(d)
}

func parseGlobalOption(d *caddyfile.Dispenser, previous any) (any, error) {
	if previous != nil {
		d.Next()
		return nil, d.Err("the global option api_keys is given twice")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(app, nil)}, nil
}

func parseGate(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	gate := new(Gate)
	return gate, gate.UnmarshalCaddyfile(h.Dispenser)
}

func parseMount(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	mount := new(Mount)
	return mount, mount.UnmarshalCaddyfile(h.Dispenser)
}

// parseSite reads the directive that protects a whole site. It is one route of
// two handlers, management and the gate for everything else:
//
//	api_keys {
//		<subdirectives of api_key_management and api_key_auth>
//	}
//
// It takes no matcher: one would let requests for the management path slip to the
// upstream.
func parseSite(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	if h.NextArg() {
		return nil, h.Errf("api_keys takes no matcher and no argument, but found %q: "+
			"use api_key_auth and api_key_management, each with a matcher of its own", h.Val())
	}
	mount, gate := new(Mount), new(Gate)
	known := gate.words()
	known["path"] = one(&mount.Path)
	if err := known.parse(h.Dispenser); err != nil {
		return nil, err
	}
	mount.Organizations, mount.Realm = gate.Organizations, gate.Realm

	values := h.NewRoute(nil, mount)
	route, ok := values[0].Value.(caddyhttp.Route)
	if !ok {
		return nil, fmt.Errorf("api_keys: unexpected route of type %T", values[0].Value)
	}
	var warnings []caddyconfig.Warning
	second := caddyconfig.JSONModuleObject(gate, "handler", caddy.GetModuleName(gate), &warnings)
	route.HandlersRaw = append(route.HandlersRaw, json.RawMessage(second))
	values[0].Value = route
	return values, nil
}

// one reads the one argument of a word, which is given once.
func one(into *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if *into != "" {
			return d.Errf("%s is given twice", word)
		}
		if !d.AllArgs(into) || *into == "" {
			return d.ArgErr()
		}
		return nil
	}
}

// number reads the one argument of a word, a number that is not negative.
func number(into *int) func(*caddyfile.Dispenser) error {
	text := ""
	read := one(&text)
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if err := read(d); err != nil {
			return err
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return d.Errf("%s: %q is not a number of keys", word, text)
		}
		*into = n
		return nil
	}
}

// many reads the arguments of a word, at least one, and adds them.
func many(into *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		values := d.RemainingArgs()
		if len(values) == 0 {
			return d.ArgErr()
		}
		*into = append(*into, values...)
		return nil
	}
}

// flag reads a word without arguments, which is given once.
func flag(into *bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *into {
			return d.Errf("%s is given twice", d.Val())
		}
		*into = true
		if d.NextArg() {
			return d.ArgErr()
		}
		return nil
	}
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Gate)(nil)
	_ caddyfile.Unmarshaler = (*Mount)(nil)
	_ caddyfile.Unmarshaler = (*Provider)(nil)
)
