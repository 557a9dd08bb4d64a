package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// checker is what the gate, the provider and the management mount share: who
// sent a request.
type checker struct {
	app    *App
	logger *zap.Logger
	header string // another place for the key, canonical
	// observed counts a refusal in place of refusing, if it is set.
	observed func(apikey.Reason)
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
		switch reason = admits(&id.verdict); {
		case reason == apikey.ReasonNone:
		case c.observed != nil:
			c.observed(reason)
		default:
			c.app.metrics.Refused(reason)
		}
		return id, reason
	}
	start := time.Now()
	verdict, keyring := c.check(r)
	if reason = verdict.Reason; reason == apikey.ReasonNone {
		id = newIdentity(verdict, keyring)
		id.beside = len(r.Header[c.header]) > 0 // else the request would be ambiguous
		reason = admits(&id.verdict)
	}
	if c.observed != nil && reason != apikey.ReasonNone {
		c.observed(reason)
	} else {
		c.app.metrics.Checked(reason, time.Since(start))
	}
	noteKey(r, &verdict)
	if reason == apikey.ReasonNone {
		c.accept(r, id)
	}
	return id, reason
}

// check finds out whose key a request carries.
func (c *checker) check(r *http.Request) (apikey.Verdict, *apikey.Keyring) {
	token, reason := credential(r.Header, c.header)
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
		c.Write(zap.Stringer("reason", verdict.Reason), zap.Stringer("api_key_id", verdict.KeyID))
	}
	return verdict, keyring
}

// accept records the use of a key and tells Caddy who is calling.
func (c *checker) accept(r *http.Request, id *identity) {
	ctx := r.Context()
	address := clientIP(r)
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

// clientIP returns the address of the client as Caddy finds it (trusted_proxies).
func clientIP(r *http.Request) string {
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return address
}

// noteKey adds the id of the key to the access log, if there is one, when the
// request had the secret to it.
func noteKey(r *http.Request, v *apikey.Verdict) {
	if v.KeyID.IsZero() {
		return
	}
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs == nil {
		return // a field costs three allocations, written or not
	}
	if fields, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		fields.Set(zap.Stringer("api_key_id", v.KeyID))
	}
}
