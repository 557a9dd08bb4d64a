package caddymodule

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// credentialHeader returns the canonical name of another header for the key.
func credentialHeader(name string) (string, error) {
	header := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case !validHeaderName(name):
		return "", fmt.Errorf("header %q: it is not the name of a header", name)
	case header == "Authorization":
		return "", fmt.Errorf("header %s: the key is looked for there anyway", name)
	}
	return header, nil
}

// credential reads the bearer token of a request (RFC 6750, section 2.1): one
// Authorization header of the scheme Bearer, with one word of visible ASCII
// after it. Another scheme is no credential. The token may also stand alone in
// another header, if one is named, and then nowhere else. The reason is ReasonNone
// when there is a token to look at.
func credential(h http.Header, header string) (token string, _ apikey.Reason) {
	token, reason := bearer(h["Authorization"])
	if header == "" {
		return token, reason
	}
	switch values := h[header]; {
	case len(values) == 0:
		return token, reason
	case len(values) > 1 || reason != apikey.ReasonNoCredential:
		return "", apikey.ReasonAmbiguous
	default:
		return word(textproto.TrimString(values[0]))
	}
}

func bearer(values []string) (token string, _ apikey.Reason) {
	switch len(values) {
	case 0:
		return "", apikey.ReasonNoCredential
	case 1:
	default:
		return "", apikey.ReasonAmbiguous
	}
	// HTTP/2 leaves the spaces around a value to us.
	scheme, rest, _ := strings.Cut(textproto.TrimString(values[0]), " ")
	if scheme == "" {
		return "", apikey.ReasonAmbiguous
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return "", apikey.ReasonNoCredential
	}
	return word(strings.TrimLeft(rest, " "))
}

// word returns the token if it is one word that is worth a look.
func word(token string) (string, apikey.Reason) {
	if token == "" {
		return "", apikey.ReasonAmbiguous
	}
	if len(token) > apikey.MaxTokenLength {
		return "", apikey.ReasonMalformed
	}
	for i := range len(token) {
		switch c := token[i]; {
		case c == ' ' || c == '\t':
			return "", apikey.ReasonAmbiguous
		case c < ' ' || c > '~':
			return "", apikey.ReasonMalformed
		}
	}
	return token, apikey.ReasonNone
}
