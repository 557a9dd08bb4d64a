package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func init() { caddy.RegisterModule(new(Mount)) }

// Mount serves the API by which the holders of keys manage the keys of their
// organization: `POST`, `GET`, `PATCH` and `DELETE` on `/v1/api-keys`. Who is
// calling is told by the key of the request, which needs the scope `read-write`
// for all but looking at itself. `/v1/api-keys/openapi.yaml` describes the API,
// to anybody.
//
// Requests for other paths go on to the next handler.
type Mount struct {
	// The path of the API. It is compared exactly: another spelling of it, by
	// percent-encoding or double slashes, is another path. Default:
	// `/v1/api-keys`.
	Path string `json:"path,omitempty"`

	// The organizations whose keys are accepted. Default: all.
	Organizations []string `json:"organizations,omitempty"`

	// A header that may carry the key in place of `Authorization`. Default:
	// none.
	Header string `json:"header,omitempty"`

	// Who is calling when the request carries no key, as another handler before
	// this one has found out. Where a key is presented, the key alone decides.
	// Default: nobody.
	Identity *Identity `json:"identity,omitempty"`

	// What `WWW-Authenticate` calls the protected space. Default: `api`.
	Realm string `json:"realm,omitempty"`

	// Where reports of leaked tokens are taken, and whose. Default: nowhere.
	LeakAlerts *LeakAlerts `json:"leak_alerts,omitempty"`

	checker
	handler  management.Handler
	document *management.Document
}

// Identity tells who is calling by placeholders that an earlier handler has set,
// such as `basic_auth` or `forward_auth`. A value that is empty is nobody. Use no
// placeholder that a client sets, as those of request headers.
type Identity struct {
	// The organization.
	Organization string `json:"organization"`
	// The user; or the service account.
	User string `json:"user,omitempty"`
	// The service account, in place of a user.
	ServiceAccount string `json:"service_account,omitempty"`
	// What the caller may do: `read` or `read-write`. Default: `read-write`.
	Scope string `json:"scope,omitempty"`
}

func (i *Identity) check() error {
	if _, ok := apikey.ParseScope(i.Scope); !ok && i.Scope != "" {
		return fmt.Errorf("identity: scope %q: use read or read-write", i.Scope)
	}
	if i.Organization == "" || (i.User == "") == (i.ServiceAccount == "") {
		return errors.New("identity: name an organization, and a user or a service_account")
	}
	return nil
}

// principal returns who is calling, if every placeholder has a value that can be
// the name of somebody.
func (i *Identity) principal(repl *caddy.Replacer) (p apikey.Principal, ok bool) {
	read := func(text string, into *string) bool {
		if text == "" {
			return true
		}
		var err error
		*into, err = repl.ReplaceOrErr(text, true, true)
		return err == nil && apikey.IsIdentity(*into)
	}
	p.Scope = apikey.ScopeReadWrite
	if i.Scope == apikey.ScopeRead.String() {
		p.Scope = apikey.ScopeRead
	}
	ok = read(i.Organization, &p.OrganizationID) && read(i.User, &p.UserID) && read(i.ServiceAccount, &p.ServiceAccountID)
	return p, ok
}

const defaultPath = "/v1/api-keys"

// CaddyModule returns the Caddy module information.
func (*Mount) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.api_key_management", New: func() caddy.Module { return new(Mount) }}
}

// Provision sets up the handler.
func (m *Mount) Provision(ctx caddy.Context) error {
	if m.Path == "" {
		m.Path = defaultPath
	}
	if !isPlainPath(m.Path) {
		return errors.New("path: give an absolute path such as " + defaultPath + ", without a slash at its end")
	}
	if m.Realm == "" {
		m.Realm = defaultRealm
	}
	if m.Header != "" {
		var err error
		if m.header, err = credentialHeader(m.Header); err != nil {
			return err
		}
	}
	if m.Identity != nil {
		if err := m.Identity.check(); err != nil {
			return err
		}
	}
	if m.LeakAlerts != nil {
		if err := m.LeakAlerts.provision(m.Path); err != nil {
			return err
		}
	}
	if err := m.provision(ctx); err != nil {
		return err
	}
	m.handler = management.Handler{Keyring: m.app.Keyring, Realm: m.Realm, Log: logFailure(m.logger)}
	m.document = management.NewDocument(m.Path)
	return nil
}

// isPlainPath reports whether a path is absolute, written in the shortest way, and
// not that of everything.
func isPlainPath(p string) bool { return p != "/" && strings.HasPrefix(p, "/") && path.Clean(p) == p }

// logFailure tells the operator the cause of an answer that does not.
func logFailure(logger *zap.Logger) func(*http.Request, string, error) {
	return func(r *http.Request, requestID string, cause error) {
		logger.Error("managing API keys failed", zap.String("method", r.Method), zap.String("request_id", requestID), zap.Error(cause))
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (m *Mount) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if m.LeakAlerts.serve(w, r, &m.handler) {
		return nil
	}
	rest, ok := below(r.URL, m.Path)
	if !ok {
		return next.ServeHTTP(w, r)
	}
	if rest == management.DocumentPath && m.app.Management != managedByOperator {
		m.document.Serve(w, r, requestID(r))
		return nil
	}
	m.handler.Serve(w, r, management.Call{
		Rest:      rest,
		RequestID: requestID(r),
		Caller: func() (apikey.Principal, *management.Refusal) {
			p, refusal := m.caller(r)
			p.Address, p.RequestID = clientIP(r), requestID(r)
			return p, refusal
		},
	})
	return nil
}

// below returns what follows base in the path of a URL. A path that was written
// in another way than its plain form does not match: the upstream may read it in
// yet another.
func below(u *url.URL, base string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(u.Path, base)
	return rest, ok && u.RawPath == "" && (rest == "" || rest[0] == '/')
}

// caller tells who is calling: the holder of the key, or, when there is none, who
// an earlier handler says.
func (m *Mount) caller(r *http.Request) (apikey.Principal, *management.Refusal) {
	if m.app.Management == managedByOperator {
		return apikey.Principal{}, management.OperatorOnly()
	}
	if m.Identity != nil && !m.hasKey(r) {
		repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
		p, ok := m.Identity.principal(repl)
		reason := admitted(m.Organizations, p.OrganizationID)
		switch {
		case !ok:
			return p, management.NoCredential(m.Realm)
		case reason != apikey.ReasonNone:
			return p, refusal(reason, m.Realm)
		}
		return p, nil
	}
	id, reason := m.identify(r, func(v *apikey.Verdict) apikey.Reason { return admitted(m.Organizations, v.OrganizationID) })
	if reason != apikey.ReasonNone {
		return apikey.Principal{}, refusal(reason, m.Realm)
	}
	return id.verdict.Principal(), nil
}

// hasKey reports whether a request carries a key, good or not, or did before a
// gate took it out.
func (m *Mount) hasKey(r *http.Request) bool {
	if _, reason := credential(r.Header, m.header); reason != apikey.ReasonNoCredential {
		return true
	}
	_, accepted := caddyhttp.GetVar(r.Context(), identityVar).(*identity)
	return accepted
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Mount)(nil)
	_ caddyhttp.MiddlewareHandler = (*Mount)(nil)
)
