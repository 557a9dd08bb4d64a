// Command ratelimit is Caddy with this plugin and caddy-ratelimit, for the test of
// docs/recipes/rate-limits.md. It is what
//
//	xcaddy build --with github.com/caddy-apikeys/caddy-apikeys --with github.com/mholt/caddy-ratelimit
//
// makes, from the clone and without the network.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-ratelimit"

	_ "github.com/caddy-apikeys/caddy-apikeys"
)

func main() { caddycmd.Main() }
