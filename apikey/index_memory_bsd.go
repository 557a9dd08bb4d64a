//go:build unix && !linux

package apikey

func inLargePages([]byte) {}
