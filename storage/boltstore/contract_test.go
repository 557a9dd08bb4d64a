package boltstore_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func open(t testing.TB, path string) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s apikey.Store, pairs ...string) {
	t.Helper()
	if err := s.Update(context.Background(), func(tx apikey.Tx) error {
		for i := 0; i < len(pairs); i += 2 {
			if err := tx.Put(apikey.TableKeys, []byte(pairs[i]), []byte(pairs[i+1])); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func get(s apikey.Store, key string) (value string, err error) {
	err = s.View(context.Background(), func(r apikey.Reader) error {
		b, err := r.Get(apikey.TableKeys, []byte(key))
		value = string(b)
		return err
	})
	return value, err
}

func want(t testing.TB, s apikey.Store, key, value string) {
	t.Helper()
	if got, err := get(s, key); got != value || err != nil {
		t.Errorf("%s is %q, %v; want %q", key, got, err, value)
	}
}

func TestBoltKeepsTheContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) apikey.Store {
		return open(t, filepath.Join(t.TempDir(), "keys.db"))
	})
}

func TestBoltKeepsRecordsOverARestart(t *testing.T) {
	storagetest.RunDurable(t, func(t *testing.T, dir string) apikey.Store {
		return open(t, filepath.Join(dir, "keys.db"))
	})
}

func TestBoltKeepsTheContractUnderACluster(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) apikey.Store {
		return storagetest.NewCluster(open(t, filepath.Join(t.TempDir(), "keys.db"))).Gateway()
	})
}
