// Command caddy is Caddy with its standard modules and this plugin, built from
// the versions that go.mod pins:
//
//	go run ./cmd/caddy run --config Caddyfile.example
package main

import (
	"os"
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-apikeys/caddy-apikeys"
)

func main() {
	// The operator's own GOGC goes before ours, and a memory limit keeps its force:
	// Caddy takes over that of a container.
	if os.Getenv("GOGC") == "" {
		keepRoom()
	}
	caddycmd.Main()
}
