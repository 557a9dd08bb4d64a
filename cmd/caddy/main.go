// Command caddy is Caddy with its standard modules and this plugin, built from
// the versions that go.mod pins:
//
//	go run ./cmd/caddy run --config Caddyfile.example
package main

import (
	"os"
	"runtime/debug"
	_ "time/tzdata"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-apikeys/caddy-apikeys"
)

func main() {
	// A gateway makes much short-lived garbage and keeps little. Collecting
	// when the heap has grown to three and a half times its size, and not when it
	// has doubled, saves it about what checking keys costs, for some 25 MiB of
	// memory; docs/benchmarks.md has the figures. The operator's own GOGC goes
	// before it, and a memory limit keeps its force: Caddy takes over that of a
	// container.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	caddycmd.Main()
}

const gcPercent = 250
