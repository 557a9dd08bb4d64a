package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func init() { caddy.RegisterModule(new(Gate)) }

// Gate lets requests with a good API key pass and refuses all others. The key is
// the bearer token of the `Authorization` header.
//
// | request | answer |
// |---|---|
// | no key | 401 |
// | two keys, an empty one, or more than one word | 400 |
// | a key that is unknown, mistyped, expired or revoked | 401, always the same |
// | a `read` key and a method that may write, an upgrade or CONNECT | 403 |
// | a key of an organization that is not admitted here | 403 |
// | it cannot be found out | 503 with `Retry-After` |
//
// Answers are JSON: `{"code": 401, "data": {"reason": "..."}, "message": "...", "requestId": "..."}`.
//
// The upstream does not see the key. It is told who is calling by the headers
// `X-Api-Key-Id`, `X-Organization-Id`, `X-User-Id`, `X-Service-Account-Id` and
// `X-Api-Key-Scope`; what a client sends under these names is removed, in every
// spelling.
//
// Placeholders: `{http.auth.user.id}` (the user or service account),
// `{http.auth.user.key_id}`, `{http.auth.user.organization_id}` and
// `{http.auth.user.scope}`. The access log has the fields `user_id` and
// `api_key_id`.
type Gate struct {
	// The organizations whose keys are accepted. Default: all.
	Organizations []string `json:"organizations,omitempty"`

	// Leave the key in the request to the upstream. Default: false.
	ForwardCredential bool `json:"forward_credential,omitempty"`

	// Other names for the headers that tell the upstream who is calling, by
	// what they tell: `key_id`, `organization_id`, `user_id`,
	// `service_account_id`, `scope`.
	IdentityHeaders map[string]string `json:"identity_headers,omitempty"`

	// What `WWW-Authenticate` calls the protected space. Default: `api`.
	Realm string `json:"realm,omitempty"`

	checker
	headers *headerPolicy
}

const defaultRealm = "api"

// CaddyModule returns the Caddy module information.
func (*Gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.api_key_auth", New: func() caddy.Module { return new(Gate) }}
}

// Provision sets up the handler.
func (g *Gate) Provision(ctx caddy.Context) (err error) {
	if g.Realm == "" {
		g.Realm = defaultRealm
	}
	if g.headers, err = newHeaderPolicy(g.IdentityHeaders, g.ForwardCredential); err != nil {
		return err
	}
	return g.provision(ctx)
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	id, reason := g.identify(r, func(v *apikey.Verdict) apikey.Reason { return g.admits(r, v) })
	if reason != apikey.ReasonNone {
		refusal(reason, g.Realm).Write(w, r, requestID(r))
		return nil
	}
	g.headers.apply(r, id)
	return next.ServeHTTP(w, r)
}

// admits judges a good key against what this request is about to do.
func (g *Gate) admits(r *http.Request, v *apikey.Verdict) apikey.Reason {
	reason := admitted(g.Organizations, v)
	if reason == apikey.ReasonNone && v.Scope == apikey.ScopeRead && mayWrite(r) {
		return apikey.ReasonScope
	}
	return reason
}

// admitted judges the organization of a good key. An empty list admits all.
func admitted(organizations []string, v *apikey.Verdict) apikey.Reason {
	if len(organizations) > 0 && !slices.Contains(organizations, v.OrganizationID) {
		return apikey.ReasonOrganization
	}
	return apikey.ReasonNone
}

// mayWrite reports whether a request may change something. An upgraded
// connection can carry anything.
func mayWrite(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		_, upgrade := r.Header["Upgrade"]
		return upgrade
	}
	return true
}

// refusal is the answer to a check that was not passed.
func refusal(reason apikey.Reason, realm string) *management.Refusal {
	switch reason {
	case apikey.ReasonNoCredential:
		return management.NoCredential(realm)
	case apikey.ReasonAmbiguous:
		return management.InvalidRequest(realm)
	case apikey.ReasonScope:
		return management.InsufficientScope(realm)
	case apikey.ReasonOrganization:
		return management.OrganizationNotAdmitted()
	case apikey.ReasonUnavailable:
		return management.StoreUnavailable()
	}
	return management.InvalidToken(realm)
}

// requestID returns the id that the access log has for the request too.
func requestID(r *http.Request) string {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	id, _ := repl.GetString("http.request.uuid")
	return id
}

// checker is what the gate, the provider and the management mount share: who
// sent a request.
type checker struct {
	app    *App
	logger *zap.Logger
}

func (c *checker) provision(ctx caddy.Context) error {
	app, err := ctx.App(appName)
	if err != nil {
		return fmt.Errorf("loading the app %s: %w", appName, err)
	}
	c.app, c.logger = app.(*App), ctx.Logger()
	return nil
}

// identityVar keeps the identity in the variables of a request, for whoever of us
// is next on its way: the first gate takes the credential out.
const identityVar = "api_keys.identity"

// identify returns who sent a request, and why that is not good enough, if it is
// not. admits judges a good key. The first time that a request is accepted, it
// counts as a use of the key.
func (c *checker) identify(r *http.Request, admits func(*apikey.Verdict) apikey.Reason) (id *identity, reason apikey.Reason) {
	if id, ok := caddyhttp.GetVar(r.Context(), identityVar).(*identity); ok {
		return id, admits(&id.verdict)
	}
	start := time.Now()
	verdict, keyring := c.check(r)
	if reason = verdict.Reason; reason == apikey.ReasonNone {
		id = newIdentity(verdict, keyring)
		reason = admits(&id.verdict)
	}
	c.app.metrics.Checked(reason, time.Since(start))
	noteKey(r, &verdict)
	if reason == apikey.ReasonNone {
		c.accept(r, id)
	}
	return id, reason
}

// check finds out whose key a request carries.
func (c *checker) check(r *http.Request) (apikey.Verdict, *apikey.Keyring) {
	token, reason := credential(r.Header)
	if reason != apikey.ReasonNone {
		return apikey.Verdict{Reason: reason}, nil
	}
	keyring, err := c.app.Keyring()
	var verdict apikey.Verdict
	if err == nil {
		verdict, err = keyring.Verify(r.Context(), token)
		if err != nil && r.Context().Err() != nil {
			// A client that leaves must not look like a store that fails.
			verdict, err = keyring.Verify(context.WithoutCancel(r.Context()), token)
		}
	}
	if err != nil {
		c.app.complain(err)
		return apikey.Verdict{Reason: apikey.ReasonUnavailable}, nil
	}
	if c := c.logger.Check(zap.DebugLevel, "checked an API key"); c != nil {
		c.Write(zap.Stringer("reason", verdict.Reason), zap.String("api_key_id", verdict.KeyName))
	}
	return verdict, keyring
}

// accept records the use of a key and tells Caddy who is calling.
func (c *checker) accept(r *http.Request, id *identity) {
	ctx := r.Context()
	address, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		address = "" // early data: the address is not verified yet
	}
	id.keyring.Use(&id.verdict, address, r.UserAgent())
	c.app.metrics.KeyAccepted(&id.verdict, c.app.PerKeyMetrics)

	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", id.verdict.PrincipalID())
	repl.Map(id.placeholder)
	caddyhttp.SetVar(ctx, identityVar, id)
}

// noteKey adds the id of the key to the access log, when the request had the
// secret to it.
func noteKey(r *http.Request, v *apikey.Verdict) {
	if fields, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && v.KeyName != "" {
		fields.Set(zap.String("api_key_id", v.KeyName))
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gate)(nil)
)
