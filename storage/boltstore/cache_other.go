//go:build !linux

package boltstore

func dropCached(string) {}
