package caddymodule

import (
	"encoding/json"
	"fmt"

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

// UnmarshalCaddyfile sets up the app from the global option:
//
//	api_keys {
//		storage                   <driver> [<arguments...>]
//		prefix                    <prefix>
//		retired_prefixes          <prefix...>
//		max_ttl                   <duration>
//		default_ttl               <duration>
//		max_keys_per_organization <keys>
//		pepper                    <secret>
//		import_secret             <name> <secret>
//		usage                     off|time|full
//		usage_resolution          <duration>
//		retention                 <duration>
//		management                keys|operator
//		per_key_metrics           <max>
//		index_size                <keys>
//	}
//
// pepper and import_secret may be given several times.
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
		"max_ttl":          duration(&a.MaxTTL),
		"default_ttl":      duration(&a.DefaultTTL),
		"pepper": func(d *caddyfile.Dispenser) error {
			args := d.RemainingArgs()
			if len(args) != 1 || args[0] == "" { // an error of Caddy's own would repeat them
				return d.Err("pepper takes one argument, a placeholder such as {file./etc/caddy/pepper}")
			}
			a.Peppers = append(a.Peppers, args[0])
			return nil
		},
		"import_secret": func(d *caddyfile.Dispenser) error {
			args := d.RemainingArgs()
			if len(args) != 2 || args[1] == "" {
				return d.Err("import_secret takes two arguments, a name and a placeholder such as {file./etc/caddy/secret}")
			}
			if _, ok := a.ImportSecrets[args[0]]; ok {
				return d.Errf("import_secret %s is given twice", args[0])
			}
			if a.ImportSecrets == nil {
				a.ImportSecrets = make(map[string]string)
			}
			a.ImportSecrets[args[0]] = args[1]
			return nil
		},
		"usage":                     one(&a.Usage),
		"usage_resolution":          duration(&a.UsageResolution),
		"retention":                 duration(&a.Retention),
		"management":                one(&a.Management),
		"max_keys_per_organization": number(&a.MaxKeysPerOrganization),
		"per_key_metrics":           number(&a.PerKeyMetrics),
		"index_size":                number(&a.IndexSize),
	}.parse(d)
}

// UnmarshalCaddyfile sets up the handler from its directive:
//
//	api_key_auth [<matcher>] {
//		organization       <id...>
//		require_scope      read|read-write
//		read_methods       <method...>
//		read_routes        <method> <path...>
//		header             <name>
//		forward_credential
//		identity_header    key_id|organization_id|user_id|service_account_id|scope <name>
//		realm              <realm>
//		observe
//		skip_preflight
//		errors             handle
//		cancel_after       <duration>|off
//		subrequest
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
		"identity_header":    pair(&g.IdentityHeaders),
		"require_scope":      one(&g.RequireScope),
		"read_methods":       many(&g.ReadMethods),
		"read_routes": func(d *caddyfile.Dispenser) error {
			args := d.RemainingArgs()
			if len(args) < 2 {
				return d.ArgErr()
			}
			if g.ReadRoutes == nil {
				g.ReadRoutes = make(map[string][]string)
			}
			g.ReadRoutes[args[0]] = append(g.ReadRoutes[args[0]], args[1:]...)
			return nil
		},
		"header":         one(&g.Header),
		"observe":        flag(&g.Observe),
		"skip_preflight": flag(&g.SkipPreflight),
		"errors": func(d *caddyfile.Dispenser) error {
			var how string
			if !d.AllArgs(&how) || how != "handle" {
				return d.Err("errors: the only way is errors handle")
			}
			g.HandleErrors = true
			return nil
		},
		"cancel_after": durationOrOff(&g.CancelAfter),
		"subrequest":   flag(&g.Subrequest),
	}
}

// UnmarshalCaddyfile sets up the handler from its directive:
//
//	api_key_management [<matcher>] {
//		path         <path>
//		organization <id...>
//		header       <name>
//		realm        <realm>
//		identity {
//			organization    <text>
//			user            <text>
//			service_account <text>
//			scope           read|read-write
//		}
//		leak_alerts {
//			path       <path>
//			public_key <identifier> <key>
//		}
//	}
func (m *Mount) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return m.words().parse(d)
}

func (m *Mount) words() words {
	return words{
		"path":         one(&m.Path),
		"organization": many(&m.Organizations),
		"header":       one(&m.Header),
		"realm":        one(&m.Realm),
		"leak_alerts":  leakAlerts(&m.LeakAlerts),
		"identity": func(d *caddyfile.Dispenser) error {
			if m.Identity != nil {
				return d.Err("identity is given twice")
			}
			if d.NextArg() {
				return d.ArgErr()
			}
			m.Identity = new(Identity)
			return words{
				"organization":    one(&m.Identity.Organization),
				"user":            one(&m.Identity.User),
				"service_account": one(&m.Identity.ServiceAccount),
				"scope":           one(&m.Identity.Scope),
			}.parse(d)
		},
	}
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
	for word, parse := range mount.words() {
		if _, shared := known[word]; !shared {
			known[word] = parse
		}
	}
	// Whoever asks under the management path would be answered by management.
	known["subrequest"] = func(d *caddyfile.Dispenser) error {
		return d.Err("subrequest is a word of api_key_auth: give it a site of its own")
	}
	if err := known.parse(h.Dispenser); err != nil {
		return nil, err
	}
	mount.Organizations, mount.Realm, mount.Header = gate.Organizations, gate.Realm, gate.Header

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

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Gate)(nil)
	_ caddyfile.Unmarshaler = (*Mount)(nil)
	_ caddyfile.Unmarshaler = (*Provider)(nil)
)
