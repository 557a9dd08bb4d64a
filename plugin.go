// Package apikeys is the door of caddy-apikeys, a plugin that turns Caddy into an
// API-key gateway: importing it adds the plugin and its default storage.
package apikeys

import (
	_ "github.com/caddy-apikeys/caddy-apikeys/caddymodule"
	_ "github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)
