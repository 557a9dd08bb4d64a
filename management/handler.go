// Package management is the HTTP API over a Keyring: issue, look at, list and
// revoke keys. It is plain net/http and is mounted twice, on a site for the
// holders of keys and on the admin endpoint for the operator; who is calling,
// and under which path, it learns from the mount.
package management

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// Handler answers the calls of the API. It is safe for concurrent use.
type Handler struct {
	// Keyring returns the open Keyring. An error that wraps
	// [apikey.ErrUnavailable] is answered 503.
	Keyring func() (*apikey.Keyring, error)
	// Realm stands in the challenges.
	Realm string
	// Log is given the cause of every answer of 500 or more; no part of it
	// goes to the client. It may be nil.
	Log func(r *http.Request, requestID string, cause error)
}

// Call is a request as its mount understands it.
type Call struct {
	// Rest is the path below that of the collection: "" for the collection,
	// "/{id}" for one key.
	Rest string
	// RequestID is the id that the log has for the request too.
	RequestID string
	// Caller tells who is calling, or why nobody is. It is called at most
	// once, and before the body is read.
	Caller func() (apikey.Principal, *Refusal)
}

// exchange is what an endpoint works on.
type exchange struct {
	*http.Request
	ring *apikey.Keyring
	by   apikey.Principal
	// id is the part of the path that names a key, unchecked.
	id string
	// body holds the members of the body that have a value.
	body map[string]string
}

// endpoint is one method of a resource. It returns the data of the envelope.
type endpoint struct {
	run func(*exchange) (any, error)
	// scope is the least that the caller must have. It is asked before
	// anything the caller sent is looked at, and by the Keyring again.
	scope apikey.Scope
	// takes lists the members of the body. Every POST and PATCH has it, so
	// that no form of a web page gets through; without it the body is not
	// read.
	takes []member
}

// resource holds the endpoints of a path by method. HEAD is GET without a body.
type resource map[string]endpoint

// resourceAt finds the resource at a path below the collection, and the id in
// it. Nothing is cleaned or redirected: another spelling is another path.
func resourceAt(rest string) (found resource, id string, ok bool) {
	if rest == "" {
		return collection, "", true
	}
	id, ok = strings.CutPrefix(rest, "/")
	if !ok || id == "" {
		return nil, "", false
	}
	if found, ok = named[id]; ok {
		return found, "", true
	}
	id, action, deeper := strings.Cut(id, "/")
	switch {
	case !deeper:
		return oneKey, id, true
	case action == "rotate":
		return rotation, id, true
	}
	return nil, "", false
}

// Serve answers one call.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, call Call) {
	data, err := h.answer(w, r, call)
	if err == nil {
		writeEnvelope(w, r, http.StatusOK, data, "success", call.RequestID)
		return
	}
	h.fail(w, r, call.RequestID, err)
}

// fail answers with what an error means to the client, and logs what it does not.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, requestID string, err error) {
	refusal := h.refusal(err)
	gone := errors.Is(err, context.Canceled) // the client left: nobody's fault
	if refusal.Status >= http.StatusInternalServerError && !gone && h.Log != nil {
		h.Log(r, requestID, err)
	}
	refusal.Write(w, r, requestID)
}

// answer does for every endpoint what all have in common. A stranger learns
// nothing but that a credential is needed.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, call Call) (any, error) {
	if refusal := guardWrite(r); refusal != nil {
		return nil, refusal
	}
	by, refusal := call.Caller()
	if refusal != nil {
		return nil, refusal
	}
	found, id, ok := resourceAt(call.Rest)
	if !ok {
		return nil, NotFound()
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	does, ok := found[method]
	if !ok {
		return nil, MethodNotAllowed(found.allow())
	}
	if by.Scope < does.scope {
		return nil, InsufficientScope(h.Realm)
	}
	x := &exchange{Request: r, by: by, id: id}
	if does.takes != nil {
		if x.body, refusal = receive(w, r, membersFor(by, does.takes)); refusal != nil {
			return nil, refusal
		}
	}
	var err error
	if x.ring, err = h.Keyring(); err != nil {
		return nil, err
	}
	return does.run(x)
}

// guardWrite refuses a write that somebody else may have caused: a page of
// another site, or one who replays TLS early data.
func guardWrite(r *http.Request) *Refusal {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	if r.TLS != nil && !r.TLS.HandshakeComplete {
		return TooEarly()
	}
	for _, site := range r.Header.Values("Sec-Fetch-Site") {
		if strings.EqualFold(site, "cross-site") {
			return CrossSite()
		}
	}
	return nil
}

// membersFor returns the members that the caller may send.
func membersFor(by apikey.Principal, all []member) []member {
	if by.Operator {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(m member) bool { return m.operator })
}

// allow writes the Allow header of the resource.
func (found resource) allow() string {
	methods := slices.Collect(maps.Keys(found))
	if _, ok := found[http.MethodGet]; ok {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// refusal is the one table from errors to answers. What is not in it is
// nobody's fault but ours.
func (h *Handler) refusal(err error) *Refusal {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal
	}
	if field, ok := errors.AsType[*apikey.FieldError](err); ok {
		return invalidField(field.Field, field.Error())
	}
	if replayed, ok := errors.AsType[*apikey.Replayed](err); ok {
		return IdempotencyReplayed(replayed.KeyID)
	}
	switch {
	case errors.Is(err, apikey.ErrNotFound):
		return NotFound()
	case errors.Is(err, apikey.ErrDuplicate):
		return Duplicate()
	case errors.Is(err, apikey.ErrOnceReused):
		return IdempotencyReused()
	case errors.Is(err, apikey.ErrQuota):
		return KeyLimit()
	case errors.Is(err, apikey.ErrNotActive):
		return NotActive()
	case errors.Is(err, apikey.ErrOwner):
		return NotOwner()
	case errors.Is(err, apikey.ErrOwnLife):
		return OwnLife()
	case errors.Is(err, apikey.ErrScope):
		return InsufficientScope(h.Realm)
	case errors.Is(err, apikey.ErrCaller):
		return InvalidToken(h.Realm)
	case errors.Is(err, apikey.ErrNoSnapshot):
		return NoBackup()
	case errors.Is(err, apikey.ErrOutcomeUnknown):
		return OutcomeUnknown()
	case errors.Is(err, apikey.ErrUnavailable):
		return StoreUnavailable()
	}
	return Internal()
}
