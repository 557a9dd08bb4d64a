package child_test

import (
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

func TestNoAddressIsGivenTwice(t *testing.T) {
	given := make(map[string]bool)
	for range 5000 { // among so many the system has repeated itself many times
		address, err := child.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		if given[address] {
			t.Fatalf("%s was given twice", address)
		}
		given[address] = true
	}
}
