// Package apikey is the domain: keys, tokens, and the one type that holds every
// rule about them, the [Keyring]. It has never heard of Caddy, HTTP or a
// database, and imports the standard library only.
//
// A refusal is a [Verdict] or one of the few sentinel errors of a management
// call; any other error means "could not find out".
package apikey
