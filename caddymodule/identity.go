package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// The facts about an accepted key that the upstream is told, each in a header.
const (
	factKeyID = iota
	factOrganization
	factUser
	factServiceAccount
	factScope

	factCount
)

// The name of each fact in the configuration, and its header by default.
var (
	factNames   = [factCount]string{"key_id", "organization_id", "user_id", "service_account_id", "scope"}
	factHeaders = [factCount]string{"X-Api-Key-Id", "X-Organization-Id", "X-User-Id", "X-Service-Account-Id", "X-Api-Key-Scope"}
)

// droppedHeaders never reach the upstream: a client could make it act under
// another method than the one that was judged, or set its HTTP_PROXY.
var droppedHeaders = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "Proxy"}

// foreignKeyHeader is where other gateways look for a key. Unless it is configured,
// it decides nothing here, and a token of ours in it would be handed to the
// upstream.
const foreignKeyHeader = "X-Api-Key"

var foldedForeignKeyHeader = strings.ToLower(foreignKeyHeader)

// headerPolicy keeps the headers of accepted requests honest.
type headerPolicy struct {
	set     [factCount]string // canonical
	removed []string          // folded
	lengths [64]bool          // lengths of removed names: most headers are passed over by it
}

// newHeaderPolicy reads which headers carry the facts, by the names of the facts;
// those that are not named keep their default. The credentials are headers that
// the upstream must not see.
func newHeaderPolicy(names map[string]string, credentials ...string) (*headerPolicy, error) {
	p := &headerPolicy{set: factHeaders}
	for name, header := range names {
		fact := slices.Index(factNames[:], name)
		if fact < 0 {
			return nil, fmt.Errorf("identity_headers: unknown name %q; known are %s", name, strings.Join(factNames[:], ", "))
		}
		if !validHeaderName(header) {
			return nil, fmt.Errorf("identity_headers: %q is not a name for a header: use up to %d letters, digits and hyphens", header, len(p.lengths)-1)
		}
		p.set[fact] = textproto.CanonicalMIMEHeaderKey(header)
	}
	for i, header := range p.set {
		if slices.Contains(p.set[:i], header) {
			return nil, fmt.Errorf("identity_headers: %s is named twice", header)
		}
	}
	// Also the defaults of what was renamed: an upstream may look at them.
	for _, list := range [][]string{p.set[:], factHeaders[:], droppedHeaders, credentials} {
		for _, header := range list {
			if folded := strings.ToLower(header); !slices.Contains(p.removed, folded) {
				p.removed = append(p.removed, folded)
				p.lengths[len(folded)] = true
			}
		}
	}
	p.lengths[len(foldedForeignKeyHeader)] = true
	return p, nil
}

func validHeaderName(name string) bool {
	if name == "" || len(name) >= len(headerPolicy{}.lengths) {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// sameHeader compares a header name with a folded one as lenient upstreams do,
// to whom X_User_Id, x.user.id, X+User!Id and X-User-Id are one: CGI and WSGI know
// letters and digits, and one character for all others.
func sameHeader(name, folded string) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		default:
			c = '-'
		}
		if c != folded[i] {
			return false
		}
	}
	return true
}

func (p *headerPolicy) removes(name string) bool {
	if len(name) >= len(p.lengths) || !p.lengths[len(name)] {
		return false
	}
	for _, folded := range p.removed {
		if sameHeader(name, folded) {
			return true
		}
	}
	return false
}

// tokenFinder knows the shape of tokens of ours.
type tokenFinder interface{ HoldsToken(text string) bool }

// scrub removes what a client must not say of itself, in every spelling.
func (p *headerPolicy) scrub(h http.Header, tokens tokenFinder) {
	for name, values := range h {
		if len(name) >= len(p.lengths) || !p.lengths[len(name)] {
			continue
		}
		if p.removes(name) || sameHeader(name, foldedForeignKeyHeader) && slices.ContainsFunc(values, tokens.HoldsToken) {
			delete(h, name)
		}
	}
}

// apply takes the credential and all that the client says of itself out of a
// request. It also sees to the two ways around that: a Connection header that
// names ours makes the proxy drop them, and trailers arrive after us.
func (p *headerPolicy) apply(r *http.Request, tokens tokenFinder) {
	p.scrub(r.Header, tokens)
	if values, ok := r.Header["Connection"]; ok {
		p.scrubConnection(r.Header, values)
	}
	if r.Trailer != nil {
		p.scrub(r.Trailer, tokens)
		r.Body = &trailerScrubber{ReadCloser: r.Body, scrub: func() { p.scrub(r.Trailer, tokens) }}
	}
}

func (p *headerPolicy) scrubConnection(h http.Header, values []string) {
	var kept []string
	dropped := false
	for _, value := range values {
		for option := range strings.SplitSeq(value, ",") {
			option = textproto.TrimString(option)
			if p.removes(option) {
				dropped = true
			} else if option != "" {
				kept = append(kept, option)
			}
		}
	}
	switch {
	case dropped && len(kept) == 0:
		delete(h, "Connection")
	case dropped:
		h["Connection"] = []string{strings.Join(kept, ", ")}
	}
}

// trailerScrubber scrubs the trailers in the moment they arrive, which is when
// the body ends, before the proxy copies them.
type trailerScrubber struct {
	io.ReadCloser
	scrub func()
}

// Read implements io.Reader.
func (t *trailerScrubber) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		t.scrub()
	}
	return n, err
}

// identity is what is known of an accepted request. It is allocated once and
// holds the values of the headers too.
type identity struct {
	verdict apikey.Verdict
	keyName string // the id of the key as text
	keyring *apikey.Keyring
	values  [factCount]string
	running runningRequest // of the first gate
}

func newIdentity(v apikey.Verdict, keyring *apikey.Keyring) *identity {
	name := v.KeyID.String()
	return &identity{verdict: v, keyName: name, keyring: keyring, values: [factCount]string{
		factKeyID:          name,
		factOrganization:   v.OrganizationID,
		factUser:           v.UserID,
		factServiceAccount: v.ServiceAccountID,
		factScope:          v.Scope.String(),
	}}
}

// setHeaders tells the upstream who is calling. A fact without a value has no
// header.
func (p *headerPolicy) setHeaders(h http.Header, id *identity) {
	for fact, name := range p.set {
		if id.values[fact] != "" {
			h[name] = id.values[fact : fact+1 : fact+1]
		}
	}
}

// placeholder implements caddy.ReplacerFunc: what is known of accepted requests,
// beside {http.auth.user.id}. It looks at the verdict, because handlers may change
// the values of headers in place.
func (id *identity) placeholder(name string) (any, bool) {
	switch name {
	case "http.auth.user.key_id":
		return id.keyName, true
	case "http.auth.user.organization_id":
		return id.verdict.OrganizationID, true
	case "http.auth.user.scope":
		return id.verdict.Scope.String(), true
	}
	return nil, false
}
