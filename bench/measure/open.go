package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/proc"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/wire"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// openTimes is how long it takes until the first request is answered, in
// milliseconds. The store is not in the page cache.
type openTimes struct {
	Store string
	// Gateway and Stock are from the start of the process on.
	Gateway, Stock []float64
	// Alone is opening the store and checking one key, without a gateway.
	Alone []float64
	// ReadMiB is what the gateway had read from the disk by then.
	ReadMiB []float64
}

// opens starts stock Caddy and ours by turns.
func (l *lab) opens(ctx context.Context) (*openTimes, error) {
	s := l.largest()
	path, err := l.copy(s, "open")
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	token, err := firstLine(s.tokens)
	if err != nil {
		return nil, err
	}
	r := &openTimes{Store: s.String()}
	stock := gateway.Config{Name: "open-stock", Binary: l.stock, Dir: l.dir, Site: "respond 200"}
	ours := gateway.Config{Name: "open-ours", Binary: l.ours, Dir: l.dir, Global: keysOption(path, ""), Site: "api_keys\nrespond 200"}
	for round := range max(l.rounds, 3) {
		l.progress("opening a cold store, round %d", round+1)
		took, _, err := startToAnswer(ctx, stock, token)
		if err != nil {
			return nil, err
		}
		r.Stock = append(r.Stock, took)
		if err := proc.DropCached(path); err != nil {
			return nil, err
		}
		took, read, err := startToAnswer(ctx, ours, token)
		if err != nil {
			return nil, err
		}
		r.Gateway, r.ReadMiB = append(r.Gateway, took), append(r.ReadMiB, read)
		if err := proc.DropCached(path); err != nil {
			return nil, err
		}
		if took, err = openAlone(ctx, path, token); err != nil {
			return nil, err
		}
		r.Alone = append(r.Alone, took)
	}
	return r, nil
}

// startToAnswer starts a gateway, waits for its first 200 to a request with a
// token, and stops it.
func startToAnswer(ctx context.Context, c gateway.Config, token string) (took, readMiB float64, err error) {
	g, command, err := gateway.Prepare(c)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if g.Process, err = child.Start(ctx, command); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, g.Stop()) }()
	for deadline := start.Add(2 * time.Minute); ; {
		if conn, err := wire.Dial(g.Address); err == nil {
			status, _, err := conn.Do(http.MethodGet, "/", token, "")
			conn.Close()
			if err != nil || status != http.StatusOK {
				return 0, 0, fmt.Errorf("%s answered %d, %v to its first request", c.Name, status, err)
			}
			break
		}
		if time.Now().After(deadline) || !g.Running() {
			return 0, 0, fmt.Errorf("%s did not answer", c.Name)
		}
		time.Sleep(200 * time.Microsecond)
	}
	took = time.Since(start).Seconds() * 1e3
	read, err := proc.BytesRead(g.PID())
	return took, float64(read) / mib, err
}

// openAlone opens a store and checks a token.
func openAlone(ctx context.Context, path, token string) (took float64, err error) {
	start := time.Now()
	store, err := boltstore.Open(path)
	if err != nil {
		return 0, err
	}
	ring, err := apikey.Open(store, apikey.Settings{}, apikey.Policy{}, nil)
	if err != nil {
		return 0, errors.Join(err, store.Close())
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	verdict, err := ring.Verify(ctx, token)
	took = time.Since(start).Seconds() * 1e3
	if err == nil && !verdict.Allowed() {
		err = fmt.Errorf("a good key was refused: %v", verdict.Reason)
	}
	return took, err
}
