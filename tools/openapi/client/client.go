// Package client is what oapi-codegen makes of management/openapi.yaml. It is
// here to be tried against a gateway; who needs a client generates his own.
package client

//go:generate go tool oapi-codegen -config config.yaml -o client.gen.go ../../../management/openapi.yaml
