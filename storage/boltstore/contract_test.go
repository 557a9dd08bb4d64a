package boltstore_test

import (
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
