// Package openapi holds management/openapi.yaml against the gateway: what the
// end-to-end tests send and get, what the gateway takes, and a client that is made
// from the document. It is a module of its own so that nobody who uses the plugin
// inherits what that needs.
package openapi
