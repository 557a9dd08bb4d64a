//go:build unix && !linux && !race

package apikey

func inLargePages([]byte) {}
