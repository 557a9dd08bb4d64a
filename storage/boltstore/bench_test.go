package boltstore_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// recordSize is about that of a stored key.
const recordSize = 200

func sequentialID(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 8, 16), n) }

func BenchmarkUpdateAlone(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "keys.db"))
	n, record := uint64(0), make([]byte, recordSize)
	b.ReportAllocs()
	for b.Loop() {
		n++
		if err := s.Update(context.Background(), func(tx apikey.Tx) error {
			return tx.Put(apikey.TableKeys, sequentialID(n), record)
		}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdateOf64AtOnce(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "keys.db"))
	var n atomic.Uint64
	record := make([]byte, recordSize)
	b.ReportAllocs()
	b.SetParallelism(32) // of 2 processors
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Update(context.Background(), func(tx apikey.Tx) error {
				return tx.Put(apikey.TableKeys, sequentialID(n.Add(1)), record)
			}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkGetOfARandomID(b *testing.B) {
	const records = 100_000
	s := open(b, filepath.Join(b.TempDir(), "keys.db"))
	record := make([]byte, recordSize)
	if err := s.Update(context.Background(), func(tx apikey.Tx) error {
		for n := range uint64(records) {
			if err := tx.Put(apikey.TableKeys, sequentialID(n), record); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	get := func(b *testing.B) {
		id := sequentialID(rand.Uint64N(records))
		if err := s.View(context.Background(), func(r apikey.Reader) error {
			value, err := r.Get(apikey.TableKeys, id)
			if len(value) != recordSize {
				b.Error("the record is gone")
			}
			return err
		}); err != nil {
			b.Error(err)
		}
	}
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			get(b)
		}
	})
	b.Run("in parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				get(b)
			}
		})
	})
}
