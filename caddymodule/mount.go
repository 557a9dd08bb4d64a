package caddymodule

import (
	"errors"
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
// organization: `POST`, `GET` and `DELETE` on `/v1/api-keys`. Who is calling is
// told by the key of the request, which needs the scope `read-write` for all but
// looking at itself.
//
// Requests for other paths go on to the next handler.
type Mount struct {
	// The path of the API. It is compared exactly: another spelling of it, by
	// percent-encoding or double slashes, is another path. Default:
	// `/v1/api-keys`.
	Path string `json:"path,omitempty"`

	// The organizations whose keys are accepted. Default: all.
	Organizations []string `json:"organizations,omitempty"`

	// What `WWW-Authenticate` calls the protected space. Default: `api`.
	Realm string `json:"realm,omitempty"`

	checker
	handler management.Handler
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
	if m.Path == "/" || !strings.HasPrefix(m.Path, "/") || path.Clean(m.Path) != m.Path {
		return errors.New("path: give an absolute path such as " + defaultPath + ", without a slash at its end")
	}
	if m.Realm == "" {
		m.Realm = defaultRealm
	}
	if err := m.provision(ctx); err != nil {
		return err
	}
	m.handler = management.Handler{Keyring: m.app.Keyring, Realm: m.Realm, Log: logFailure(m.logger)}
	return nil
}

// logFailure tells the operator the cause of an answer that does not.
func logFailure(logger *zap.Logger) func(*http.Request, string, error) {
	return func(r *http.Request, requestID string, cause error) {
		logger.Error("managing API keys failed", zap.String("method", r.Method), zap.String("request_id", requestID), zap.Error(cause))
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (m *Mount) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rest, ok := below(r.URL, m.Path)
	if !ok {
		return next.ServeHTTP(w, r)
	}
	m.handler.Serve(w, r, management.Call{
		Rest:      rest,
		RequestID: requestID(r),
		Caller:    func() (apikey.Principal, *management.Refusal) { return m.caller(r) },
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

// caller tells by the key of a request who is calling.
func (m *Mount) caller(r *http.Request) (apikey.Principal, *management.Refusal) {
	id, reason := m.identify(r, func(v *apikey.Verdict) apikey.Reason { return admitted(m.Organizations, v) })
	if reason != apikey.ReasonNone {
		return apikey.Principal{}, refusal(reason, m.Realm)
	}
	return id.verdict.Principal(), nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Mount)(nil)
	_ caddyhttp.MiddlewareHandler = (*Mount)(nil)
)
