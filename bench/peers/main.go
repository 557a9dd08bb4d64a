// Command peers is Caddy with caddy-security, another plugin that checks the bearer
// token of each request. It is a module of its own, so that nothing of it comes into a
// build of this project.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/greenpau/caddy-security"
)

func main() { caddycmd.Main() }
