package caddymodule

import (
	"errors"
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

	// The scope that every request needs: `read-write` refuses keys of scope
	// `read` whatever the method. Default: `read`.
	RequireScope string `json:"require_scope,omitempty"`

	// The methods that a key of scope `read` may use. Upgrades and `CONNECT`
	// need `read-write` all the same. Default: `GET`, `HEAD`, `OPTIONS`.
	ReadMethods []string `json:"read_methods,omitempty"`

	// Requests that a key of scope `read` may make whatever their method, as
	// searches are: by method, the paths, compared exactly.
	ReadRoutes map[string][]string `json:"read_routes,omitempty"`

	// A header that may carry the key in place of `Authorization`; the upstream
	// then sees an `Authorization` of another scheme. Caddy's access log shows
	// the header, unless it is written in the format `api_keys`. Default: none.
	Header string `json:"header,omitempty"`

	// Leave the key in the request to the upstream. Default: false.
	ForwardCredential bool `json:"forward_credential,omitempty"`

	// Other names for the headers that tell the upstream who is calling, by
	// what they tell: `key_id`, `organization_id`, `user_id`,
	// `service_account_id`, `scope`.
	IdentityHeaders map[string]string `json:"identity_headers,omitempty"`

	// What `WWW-Authenticate` calls the protected space. Default: `api`.
	Realm string `json:"realm,omitempty"`

	// Let every request pass, and only count and log those that would be
	// refused. Accepted keys work as ever, and nobody can forge the identity
	// headers. It is how the gate is turned on without an outage. Default:
	// false.
	Observe bool `json:"observe,omitempty"`

	// Let CORS preflight requests pass without a key: `OPTIONS` with `Origin`
	// and `Access-Control-Request-Method`. Browsers send no key with them.
	// Default: false.
	SkipPreflight bool `json:"skip_preflight,omitempty"`

	// Hand refusals to the `handle_errors` routes of the site. The placeholder
	// `{http.auth.refused}` has the reason. Default: false, the gate answers.
	HandleErrors bool `json:"handle_errors,omitempty"`

	// How long a request may still run after its key was revoked or has
	// expired. Then it is cancelled: a stream above all. Default: `5s`; a
	// negative one never cancels.
	CancelAfter caddy.Duration `json:"cancel_after,omitempty"`

	// Answer another proxy that asks whether a request may pass, as nginx
	// `auth_request` and Caddy's `forward_auth` do, and pass nothing on. The
	// method and the URI of the request are taken from `X-Forwarded-Method` and
	// `X-Forwarded-Uri`, the rest from the subrequest itself, whose own method
	// and URI do not matter. It must come from one of the `trusted_proxies` of
	// the server.
	//
	// The answer has no body: 204 with every identity header, empty where there
	// is nothing to tell; 401, also for what is a 400 otherwise; 403; or 503,
	// also where the subrequest comes from elsewhere or lacks one of the
	// headers. While it observes it is always 204. It is for a site of its own,
	// without a host name: Caddy answers 200 where no route matches. It cannot
	// be combined with `errors handle`, `forward_credential` and `cancel_after`.
	// Default: false.
	Subrequest bool `json:"subrequest,omitempty"`

	checker
	headerPolicies
	readable  map[string]bool
	refusals  map[apikey.Reason]*management.Refusal
	complaint seldom // about subrequests
}

const (
	defaultRealm       = "api"
	defaultCancelAfter = caddy.Duration(5 * time.Second)
)

var defaultReadMethods = []string{http.MethodGet, http.MethodHead, http.MethodOptions}

// CaddyModule returns the Caddy module information.
func (*Gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.api_key_auth", New: func() caddy.Module { return new(Gate) }}
}

// Provision sets up the handler.
func (g *Gate) Provision(ctx caddy.Context) (err error) {
	if err := g.checkSubrequest(); err != nil {
		return err
	}
	if g.Realm == "" {
		g.Realm = defaultRealm
	}
	if g.CancelAfter == 0 {
		g.CancelAfter = defaultCancelAfter
	}
	if _, ok := apikey.ParseScope(g.RequireScope); !ok && g.RequireScope != "" {
		return fmt.Errorf("require_scope %q: use read or read-write", g.RequireScope)
	}
	g.readable = make(map[string]bool)
	methods := g.ReadMethods
	if methods == nil {
		methods = defaultReadMethods
	}
	for _, method := range methods {
		g.readable[method] = true
	}
	g.refusals = make(map[apikey.Reason]*management.Refusal)
	for _, reason := range apikey.Reasons() {
		g.refusals[reason] = refusal(reason, g.Realm).Prepare()
	}
	if g.Header != "" {
		if g.header, err = credentialHeader(g.Header); err != nil {
			return err
		}
	}
	if g.headerPolicies, err = newHeaderPolicies(g.IdentityHeaders, g.header, g.ForwardCredential); err != nil {
		return err
	}
	if err := g.provision(ctx); err != nil {
		return err
	}
	if g.CancelAfter >= 0 {
		rememberConns(ctx)
	}
	if g.Observe {
		g.observed = g.app.metrics.ObservedRefusal
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if g.Subrequest {
		g.answerSubrequest(w, r)
		return nil
	}
	if g.SkipPreflight && isPreflight(r) {
		g.headers.apply(r, g.app)
		return next.ServeHTTP(w, r)
	}
	id, reason := g.identify(r, func(v *apikey.Verdict) apikey.Reason { return g.admits(r, v) })
	switch {
	case reason == apikey.ReasonNone:
	case g.Observe:
		g.logObserved(r, id, reason)
		g.passing.apply(r, g.app)
		return next.ServeHTTP(w, r)
	default:
		return g.refuse(w, r, reason)
	}
	policy := g.of(id)
	policy.apply(r, id.keyring)
	policy.setHeaders(r.Header, id)
	if g.CancelAfter < 0 {
		return next.ServeHTTP(w, r)
	}
	r, watched := running.watched(w, r, id, time.Duration(g.CancelAfter))
	defer watched.end()
	return next.ServeHTTP(w, r)
}

// isPreflight reports whether a browser asks what it may send (Fetch standard,
// CORS-preflight request). An upgrade does not: it would open a connection that can
// carry anything.
func isPreflight(r *http.Request) bool {
	_, upgrade := r.Header["Upgrade"]
	return r.Method == http.MethodOptions && !upgrade && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// refuse answers a request that is not accepted, or has the site do it.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, reason apikey.Reason) error {
	answer := g.refusals[reason]
	if !g.HandleErrors {
		answer.Write(w, r, requestID(r))
		return nil
	}
	answer.SetHeaders(w.Header())
	// What handles the error may be a proxy, too.
	g.headers.apply(r, g.app)
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.refused", string(answer.Reason))
	return caddyhttp.Error(answer.Status, errors.New(answer.Message))
}

// logObserved tells who would have been refused. id is nil unless the key is good.
func (g *Gate) logObserved(r *http.Request, id *identity, reason apikey.Reason) {
	if c := g.logger.Check(zap.InfoLevel, "would refuse"); c != nil {
		fields := []zap.Field{zap.Stringer("reason", reason), zap.String("method", r.Method), zap.String("host", redact(r.Host)),
			zap.String("path", redact(r.URL.Path)), zap.String("client_ip", clientIP(r))}
		if id != nil {
			fields = append(fields, zap.String("api_key_id", id.keyName))
		}
		c.Write(fields...)
	}
}

// admits judges a good key against what this request is about to do.
func (g *Gate) admits(r *http.Request, v *apikey.Verdict) apikey.Reason {
	reason := admitted(g.Organizations, v.OrganizationID)
	if reason == apikey.ReasonNone && v.Scope == apikey.ScopeRead && (g.RequireScope == apikey.ScopeReadWrite.String() || g.mayWrite(r)) {
		return apikey.ReasonScope
	}
	return reason
}

// admitted judges the organization of a caller. An empty list admits all.
func admitted(organizations []string, organization string) apikey.Reason {
	if len(organizations) > 0 && !slices.Contains(organizations, organization) {
		return apikey.ReasonOrganization
	}
	return apikey.ReasonNone
}

// mayWrite reports whether a request may change something. An upgraded
// connection can carry anything.
func (g *Gate) mayWrite(r *http.Request) bool {
	if _, upgrade := r.Header["Upgrade"]; upgrade || r.Method == http.MethodConnect {
		return true
	}
	return !g.readable[r.Method] && !(r.URL.RawPath == "" && slices.Contains(g.ReadRoutes[r.Method], r.URL.Path))
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

// Interface guards
var (
	_ caddy.Provisioner           = (*Gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gate)(nil)
)
