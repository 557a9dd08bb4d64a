package caddymodule

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// stores holds the open store of each identity, with the number of
// configurations that use it.
var stores = caddy.NewUsagePool()

// sharedStore is a store that configurations share. It is new until a
// configuration starts, then open, and closed for good when the last one that
// uses it has gone: a late request of an old configuration must not open the
// file again, for nobody would ever close it.
type sharedStore struct {
	identity string

	mu      sync.Mutex
	keyring *apikey.Keyring
	closed  atomic.Bool
}

func acquireStore(identity string) (*sharedStore, error) {
	value, _, err := stores.LoadOrNew(identity, func() (caddy.Destructor, error) {
		return &sharedStore{identity: identity}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*sharedStore), nil
}

func (s *sharedStore) release() error {
	_, err := stores.Delete(s.identity)
	return err
}

// open returns the Keyring, which the first caller opens. An error is not
// remembered: the next caller tries again.
func (s *sharedStore) open(opener func() (*apikey.Keyring, error)) (*apikey.Keyring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return nil, fmt.Errorf("%w: the key store was closed by a newer configuration", apikey.ErrUnavailable)
	}
	if s.keyring == nil {
		keyring, err := opener()
		if err != nil {
			return nil, err
		}
		s.keyring = keyring
	}
	return s.keyring, nil
}

// Destruct implements caddy.Destructor.
func (s *sharedStore) Destruct() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed.Store(true)
	if s.keyring == nil {
		return nil
	}
	return s.keyring.Close()
}
