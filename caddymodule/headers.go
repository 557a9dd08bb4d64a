package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
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

// headerPolicy keeps the headers of requests honest.
type headerPolicy struct {
	set        [factCount]string // canonical
	credential string            // canonical: where the key may stand, which is not searched
	removed    []string          // folded
	searched   []string          // folded: removed if there is a token of ours in it
	lengths    [64]bool          // lengths of all these names: most headers are passed over by it
}

// newHeaderPolicy reads which headers carry the facts, by the names of the facts;
// those that are not named keep their default. It leaves the header that may carry
// the key, if there is one beside Authorization.
func newHeaderPolicy(names map[string]string, credential string) (*headerPolicy, error) {
	p := &headerPolicy{set: factHeaders, credential: credential}
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
	p.fold(&p.removed, p.set[:]...)
	p.fold(&p.removed, factHeaders[:]...) // what was renamed, too: an upstream may look at it
	p.fold(&p.removed, droppedHeaders...)
	p.fold(&p.searched, foreignKeyHeader)
	return p, nil
}

// fold adds headers to a list of the policy.
func (p *headerPolicy) fold(list *[]string, headers ...string) {
	for _, header := range headers {
		if folded := strings.ToLower(header); header != "" && !slices.Contains(*list, folded) {
			*list = append(*list, folded)
			p.lengths[len(folded)] = true
		}
	}
}

// headerPolicies are the policies of a gate.
type headerPolicies struct {
	headers *headerPolicy // of requests whose key stood in Authorization, or was not looked for
	beside  *headerPolicy // of those whose key stood in another header
	passing *headerPolicy // of those that pass without being accepted
}

// newHeaderPolicies takes what newHeaderPolicy does, and whether the key is to be
// forwarded. Where it stood in another header, Authorization is of another scheme
// and the upstream's, but for a token of ours in it.
func newHeaderPolicies(names map[string]string, credential string, forward bool) (p headerPolicies, err error) {
	for _, policy := range []**headerPolicy{&p.headers, &p.beside, &p.passing} {
		if *policy, err = newHeaderPolicy(names, credential); err != nil {
			return p, err
		}
	}
	if !forward {
		p.headers.fold(&p.headers.removed, credential, "Authorization")
		p.beside.fold(&p.beside.removed, credential)
		p.beside.fold(&p.beside.searched, "Authorization")
	}
	return p, nil
}

// of returns the policy of an accepted request.
func (p *headerPolicies) of(id *identity) *headerPolicy {
	if id.beside {
		return p.beside
	}
	return p.headers
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
	return isOneOf(name, p.removed)
}

func isOneOf(name string, folded []string) bool {
	for _, f := range folded {
		if sameHeader(name, f) {
			return true
		}
	}
	return false
}

// tokenFinder knows the shape of tokens of ours.
type tokenFinder interface{ HoldsToken(text string) bool }

// scrub removes what a client must not say of itself, in every spelling. The
// credential is not searched for tokens.
func (p *headerPolicy) scrub(h http.Header, credential string, tokens tokenFinder) {
	for name, values := range h {
		if len(name) >= len(p.lengths) || !p.lengths[len(name)] {
			continue
		}
		if p.removes(name) || name != credential && isOneOf(name, p.searched) && slices.ContainsFunc(values, tokens.HoldsToken) {
			delete(h, name)
		}
	}
}

// apply takes the credential and all that the client says of itself out of a
// request. It also sees to the two ways around that: a Connection header that
// names ours makes the proxy drop them, and trailers arrive after us.
func (p *headerPolicy) apply(r *http.Request, tokens tokenFinder) {
	p.scrub(r.Header, p.credential, tokens)
	if values, ok := r.Header["Connection"]; ok {
		p.scrubConnection(r.Header, values)
	}
	if r.Trailer != nil {
		p.scrub(r.Trailer, "", tokens)
		r.Body = &trailerScrubber{ReadCloser: r.Body, scrub: func() { p.scrub(r.Trailer, "", tokens) }}
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

// setHeaders tells the upstream who is calling. A fact without a value has no
// header.
func (p *headerPolicy) setHeaders(h http.Header, id *identity) {
	for fact, name := range p.set {
		if id.values[fact] != "" {
			h[name] = id.values[fact : fact+1 : fact+1]
		}
	}
}
