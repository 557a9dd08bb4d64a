package caddymodule

import (
	"net/http"
	"net/textproto"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// credential reads the bearer token of a request (RFC 6750, section 2.1): one
// Authorization header of the scheme Bearer, with one word of visible ASCII
// after it. Another scheme is no credential. The reason is ReasonNone when there
// is a token to look at.
func credential(h http.Header) (token string, _ apikey.Reason) {
	values := h["Authorization"]
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
	token = strings.TrimLeft(rest, " ")
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
