package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "go.etcd.io/bbolt"
	_ "github.com/go-json-experiment/json"
)

func main() { caddycmd.Main() }
