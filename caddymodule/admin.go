package caddymodule

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func init() { caddy.RegisterModule(new(Admin)) }

const adminBase = "/api_keys/"

// Admin serves the operator on Caddy's admin endpoint. Who reaches that endpoint
// is the operator; it should be a unix socket.
//
//	GET                 /api_keys/ready                             200, or 503 with the reason
//	GET                 /api_keys/stats                             how many keys there are
//	POST                /api_keys/import[?dry_run=true]             keys that were made elsewhere, as JSON lines
//	GET                 /api_keys/export[?hashes=true]              all keys, as JSON lines
//	GET                 /api_keys/backup                            a consistent copy of the store
//	GET                 /api_keys/check                             what is wrong with the store, as JSON lines
//	*                   /api_keys/organizations/{org}/keys[/...]    as /v1/api-keys of the organization
//	*                   /api_keys/keys/{id}[/...]                   a key of any organization
//	POST                /api_keys/keys/verify                       a token of any organization
type Admin struct{ logger *zap.Logger }

// CaddyModule returns the Caddy module information.
func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.api_keys", New: func() caddy.Module { return new(Admin) }}
}

// Provision sets up the routes. They must not hold on to anything of the
// configuration: Caddy never cleans admin modules up, and keeps serving those of
// a configuration that failed to load.
func (a *Admin) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger(a)
	return nil
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminBase, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == adminBase+"ready" {
		return ready(w, r)
	}
	handler := management.Handler{Keyring: activeKeyring, Realm: appName, Log: logFailure(a.logger)}
	requestID := uuid.NewString()
	address, _, _ := net.SplitHostPort(r.RemoteAddr) // on a unix socket there is none
	switch r.URL.EscapedPath() {
	case adminBase + "stats":
		handler.ServeStats(w, r, requestID)
		return nil
	case adminBase + "import":
		by := apikey.Operator("")
		by.RequestID, by.Address = requestID, address
		handler.ServeImport(w, r, by)
		return nil
	case adminBase + "export":
		handler.ServeExport(w, r, requestID)
		return nil
	case adminBase + "backup":
		handler.ServeBackup(w, r, requestID)
		return nil
	case adminBase + "check":
		handler.ServeCheck(w, r, requestID)
		return nil
	}
	operator, rest, ok := operatorPath(r.URL)
	if !ok {
		management.NotFound().Write(w, r, requestID)
		return nil
	}
	operator.RequestID, operator.Address = requestID, address
	handler.Serve(w, r, management.Call{
		Rest:      rest,
		RequestID: requestID,
		Caller:    func() (apikey.Principal, *management.Refusal) { return operator, nil },
	})
	return nil
}

// operatorPath reads on whose keys the operator acts, and the path below them.
// It looks at the escaped path: the id of an organization may hold a slash.
func operatorPath(u *url.URL) (_ apikey.Principal, rest string, ok bool) {
	escaped, _ := strings.CutPrefix(u.EscapedPath(), adminBase)
	if rest, ok = strings.CutPrefix(escaped, "keys/"); ok {
		return apikey.Operator(""), "/" + rest, true
	}
	escaped, ok = strings.CutPrefix(escaped, "organizations/")
	organization, below, found := strings.Cut(escaped, "/")
	if !ok || !found {
		return apikey.Principal{}, "", false
	}
	organization, err := url.PathUnescape(organization)
	rest, ok = strings.CutPrefix(below, "keys")
	if err != nil || !ok || organization == "" {
		return apikey.Principal{}, "", false
	}
	return apikey.Operator(organization), rest, true
}

// activeApp returns the app of the configuration that is in force now.
func activeApp() (*App, error) {
	app, err := caddy.ActiveContext().AppIfConfigured(appName)
	if err != nil {
		return nil, fmt.Errorf("%w: no running configuration uses API keys", apikey.ErrUnavailable)
	}
	return app.(*App), nil
}

func activeKeyring() (*apikey.Keyring, error) {
	app, err := activeApp()
	if err != nil {
		return nil, err
	}
	return app.Keyring()
}

// openKeyring returns the keys of the configuration that is in force, or nil where
// its store is not open: to be asked for metrics is no reason to open one. Caddy's
// /metrics may be that of a configuration that was refused.
func openKeyring() *apikey.Keyring {
	app, err := activeApp()
	if err != nil {
		return nil
	}
	return app.keyring.Load()
}

// ready answers whether keys can be looked up.
func ready(w http.ResponseWriter, r *http.Request) error {
	keyring, err := activeKeyring()
	if err == nil {
		_, err = keyring.Stats(r.Context())
	}
	answer := struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason,omitempty"`
	}{Ready: err == nil}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		answer.Reason = err.Error()
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return json.NewEncoder(w).Encode(answer)
}

// Interface guards
var (
	_ caddy.Provisioner = (*Admin)(nil)
	_ caddy.AdminRouter = (*Admin)(nil)
)
