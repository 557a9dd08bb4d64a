package caddymodule

import (
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
	if g.headers, err = newHeaderPolicy(g.IdentityHeaders); err != nil {
		return err
	}
	return g.provision(ctx)
}

// identityVar keeps the identity in the variables of a request, for a further
// gate on its way: the first one has taken the credential out.
const identityVar = "api_keys.identity"

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if id, ok := caddyhttp.GetVar(r.Context(), identityVar).(*identity); ok {
		if reason := g.admits(r, &id.verdict); reason != apikey.ReasonNone {
			return g.refuse(w, r, reason)
		}
		return next.ServeHTTP(w, r)
	}

	start := time.Now()
	verdict, keyring := g.check(r)
	if verdict.Allowed() {
		verdict.Reason = g.admits(r, &verdict)
	}
	g.app.metrics.Checked(verdict.Reason, time.Since(start))
	if !verdict.Allowed() {
		noteKey(r, &verdict)
		return g.refuse(w, r, verdict.Reason)
	}
	id := newIdentity(verdict)
	g.accept(r, keyring, id)

	caddyhttp.SetVar(r.Context(), identityVar, id)
	g.headers.scrubRequest(r, keyring.HoldsToken)
	if !g.ForwardCredential {
		delete(r.Header, "Authorization")
	}
	g.headers.setHeaders(r.Header, id)
	return next.ServeHTTP(w, r)
}

// admits judges a good key against what this request is about to do.
func (g *Gate) admits(r *http.Request, v *apikey.Verdict) apikey.Reason {
	switch {
	case len(g.Organizations) > 0 && !slices.Contains(g.Organizations, v.OrganizationID):
		return apikey.ReasonOrganization
	case v.Scope == apikey.ScopeRead && mayWrite(r):
		return apikey.ReasonScope
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

func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, reason apikey.Reason) error {
	refusal(reason, g.Realm).Write(w, r, requestID(r))
	return nil
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
func (c *checker) accept(r *http.Request, keyring *apikey.Keyring, id *identity) {
	ctx := r.Context()
	address, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		address = "" // early data: the address is not verified yet
	}
	keyring.Use(&id.verdict, address, r.UserAgent())
	c.app.metrics.KeyAccepted(&id.verdict, c.app.PerKeyMetrics)

	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", id.verdict.PrincipalID())
	repl.Map(id.placeholder)
	noteKey(r, &id.verdict)
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
