package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func init() { caddy.RegisterModule(new(Provider)) }

// Provider checks API keys for Caddy's `authentication` handler, for use beside
// other providers. That handler answers every refusal with a bare 401, and does
// not look at scopes; where no other provider is needed, the handler
// `api_key_auth` is the better choice.
//
// An accepted request has the same placeholders as with `api_key_auth`. The
// headers of the request stay as they are, the key and what a client says of
// itself among them: tell the upstream who is calling by `header_up` and the
// placeholders.
type Provider struct{ checker }

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.authentication.providers.api_key", New: func() caddy.Module { return new(Provider) }}
}

// Provision sets up the provider.
func (p *Provider) Provision(ctx caddy.Context) error { return p.provision(ctx) }

// UnmarshalCaddyfile reads the name of the provider, which has no options.
func (*Provider) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Authenticate implements caddyauth.Authenticator. A bad key is not an error: the
// authentication handler would log one for every request of a stranger. That the
// key could not be looked up is one, though that handler says 401 to it too.
func (p *Provider) Authenticate(_ http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	id, reason := p.identify(r, func(*apikey.Verdict) apikey.Reason { return apikey.ReasonNone })
	switch reason {
	case apikey.ReasonNone:
	case apikey.ReasonUnavailable:
		return caddyauth.User{}, false, apikey.ErrUnavailable
	default:
		return caddyauth.User{}, false, nil
	}
	return caddyauth.User{ID: id.verdict.PrincipalID(), Metadata: map[string]string{
		"key_id":          id.keyName,
		"organization_id": id.verdict.OrganizationID,
		"scope":           id.verdict.Scope.String(),
	}}, true, nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Provider)(nil)
	_ caddyauth.Authenticator = (*Provider)(nil)
)
