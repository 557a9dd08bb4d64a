// Package storage is the door through which Caddy loads storage drivers: the
// namespace api_keys.storage and what its modules implement.
//
// What a driver must do is [apikey.Store]; whether it does is shown by package
// storagetest.
package storage

import (
	"context"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// Namespace is the Caddy module namespace of storage drivers.
const Namespace = "api_keys.storage"

// Driver is what a Caddy module in [Namespace] implements: the configuration of
// a store. A driver is provisioned for every configuration that Caddy loads or
// only validates, so Provision must not touch the store; Open does.
type Driver interface {
	// Identity names the store that the configuration means, such as the
	// canonical path of its file. Configurations with one identity share one
	// open store, whatever else they say. It is called after Provision.
	Identity() string

	// Open opens the store. It is called once for as long as any loaded
	// configuration uses the identity, and again after the last of them has
	// gone. It must give up within seconds: Caddy waits for it. The store
	// outlives the driver, so it must keep nothing of the driver's context.
	Open(ctx context.Context) (apikey.Store, error)
}
