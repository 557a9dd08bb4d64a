package caddymodule

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// The headers by which a proxy tells what its client has sent. Who can write them
// decides what a key may do, so that they are taken from trusted proxies only.
const (
	forwardedMethod = "X-Forwarded-Method"
	forwardedURI    = "X-Forwarded-Uri"
)

// checkSubrequest refuses the settings that mean nothing where nothing is passed
// on: who sets them expects what would not happen.
func (g *Gate) checkSubrequest() error {
	switch {
	case !g.Subrequest:
		return nil
	case g.HandleErrors:
		return errors.New("errors handle cannot be combined with subrequest: the proxy that asks knows no answer but a status")
	case g.ForwardCredential:
		return errors.New("forward_credential cannot be combined with subrequest: the proxy that asks decides what the upstream sees")
	case g.CancelAfter != 0:
		return errors.New("cancel_after cannot be combined with subrequest: the request runs in the proxy that asks, out of reach")
	}
	return nil
}

// answerSubrequest tells another proxy whether a request may pass: 204 with the
// identity headers, or 401, 403 or 503, all without a body.
func (g *Gate) answerSubrequest(w http.ResponseWriter, r *http.Request) {
	var id *identity
	var reason apikey.Reason
	if asked, err := forwarded(r); err != nil {
		reason = apikey.ReasonUnavailable
		g.undecided(r, err)
	} else if !g.SkipPreflight || !isPreflight(asked) {
		id, reason = g.identify(asked, func(v *apikey.Verdict) apikey.Reason { return g.admits(asked, v) })
		if g.Observe && reason != apikey.ReasonNone {
			g.logObserved(asked, id, reason)
		}
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if reason != apikey.ReasonNone && !g.Observe {
		answer := g.refusals[reason]
		answer.SetHeaders(header)
		status := answer.Status
		if status == http.StatusBadRequest { // nginx would make a 500 of it
			status = http.StatusUnauthorized
		}
		w.WriteHeader(status)
		return
	}
	// Those without a value too: a proxy that copies what is there would leave
	// the client's own in the request.
	for _, name := range g.headers.set {
		header[name] = []string{""}
	}
	if id != nil && reason == apikey.ReasonNone {
		g.headers.setHeaders(header, id)
	}
	w.WriteHeader(http.StatusNoContent)
}

// undecided counts and logs that a subrequest could not be judged, which is for
// the operator to put right.
func (g *Gate) undecided(r *http.Request, err error) {
	if g.observed != nil {
		g.observed(apikey.ReasonUnavailable)
	} else {
		g.app.metrics.Checked(apikey.ReasonUnavailable, 0)
	}
	if g.complaint.due(time.Now()) {
		address, _, _ := net.SplitHostPort(r.RemoteAddr)
		g.logger.Error("a subrequest cannot be judged", zap.Error(err), zap.String("remote_ip", address))
	}
}

// warnOfUnasked logs which servers have gates for subrequests, but none for every
// request: Caddy answers 200 where no route matches, which the proxy that asks
// takes for a yes.
func (a *App) warnOfUnasked() {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return // there are no sites
	}
	for name, server := range app.(*caddyhttp.App).Servers {
		if some, all := asked(server.Routes); some && !all {
			a.logger.Warn("a site with subrequest does not match every request, and Caddy answers 200 to the others, which lets them pass: "+
				"give it no host name and the gate no matcher", zap.String("server", name), zap.Strings("listen", server.Listen))
		}
	}
}

// asked reports whether some or even all requests come to a gate for subrequests.
func asked(routes caddyhttp.RouteList) (some, all bool) {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			here, always := false, false
			switch handler := handler.(type) {
			case *Gate:
				here, always = handler.Subrequest, handler.Subrequest
			case *caddyhttp.Subroute:
				here, always = asked(handler.Routes)
			}
			some, all = some || here, all || always && len(route.MatcherSets) == 0
		}
	}
	return some, all
}

// forwarded returns the request that a proxy asks about, with the method and the
// path that its client has sent. An error says why it cannot be known, and holds
// nothing of the request: there may be a key in the URI.
func forwarded(r *http.Request) (*http.Request, error) {
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); !trusted {
		return nil, errors.New("it does not come from one of the trusted_proxies of this server")
	}
	method, err := single(r.Header, forwardedMethod)
	if err != nil {
		return nil, err
	}
	// Some proxies join what came twice with a comma.
	if strings.ContainsFunc(method, func(c rune) bool { return c <= ' ' || c == ',' || c > '~' }) {
		return nil, errors.New(forwardedMethod + " is not one method")
	}
	uri, err := single(r.Header, forwardedURI)
	if err != nil {
		return nil, err
	}
	path, _, _ := strings.Cut(uri, "?")
	target, err := url.ParseRequestURI(path)
	if err != nil || strings.Contains(path, " ") {
		return nil, errors.New(forwardedURI + " is not one URI")
	}
	asked := *r
	asked.Method, asked.URL = method, target
	return &asked, nil
}

// single returns the value of a header that must be there exactly once.
func single(h http.Header, name string) (string, error) {
	values := h[name]
	if len(values) != 1 || values[0] == "" {
		return "", fmt.Errorf("%s must be there once and not be empty, and is there %d times: have the proxy set it", name, len(values))
	}
	return values[0], nil
}
