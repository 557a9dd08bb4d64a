module github.com/caddy-apikeys/caddy-apikeys/bench/index

go 1.26.0

require (
	github.com/caddy-apikeys/caddy-apikeys v0.0.0
	github.com/maypok86/otter/v2 v2.4.0
)

replace github.com/caddy-apikeys/caddy-apikeys => ../..
