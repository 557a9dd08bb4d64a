package caddymodule

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// Accepted requests are watched while they run: when their key dies, they are
// cancelled. Every request pays for it, so that it is a place in a list, and a
// timer only for all together.

// running are the accepted requests of the process. They outlive the configuration
// that let them in.
var running watchlist

type watchlist struct {
	shards   [64]watchShard
	watching atomic.Bool   // a goroutine looks after them
	looks    atomic.Uint32 // how often it has
}

// watchShard is a part of the watchlist, so that requests do not wait for each
// other. Requests come to any of them, by chance.
type watchShard struct {
	mu             sync.Mutex
	oldest, newest *runningRequest
	_              [40]byte // keeps neighbours off the same cache line
}

// runningRequest is a request that an accepted key has begun.
type runningRequest struct {
	keyring *apikey.Keyring
	key     apikey.ID
	grace   time.Duration
	cancel  context.CancelFunc
	began   uint32 // the looks there had been

	shard        *watchShard
	older, newer *runningRequest // guarded by the shard
}

// watchInterval is how often the keys of running requests are looked at.
const watchInterval = time.Second

// watched returns a request that is cancelled when it still runs so long after its
// key has died. The second result must be ended with it.
func (w *watchlist) watched(r *http.Request, id *identity, grace time.Duration) (*http.Request, *runningRequest) {
	ctx, cancel := context.WithCancel(r.Context())
	running := &id.running
	if running.shard != nil { // a gate before this one has it
		running = new(runningRequest)
	}
	*running = runningRequest{
		keyring: id.keyring, key: id.verdict.KeyID, grace: grace, cancel: cancel,
		began: w.looks.Load(), shard: &w.shards[rand.Uint32()%uint32(len(w.shards))],
	}
	running.shard.add(running)
	if !w.watching.Load() && w.watching.CompareAndSwap(false, true) {
		go w.watch()
	}
	return r.WithContext(ctx), running
}

// end leaves the context to the server, which cancels all of a request when it has
// been answered. To do it here costs more: the context then has to be taken out of
// the server's.
func (r *runningRequest) end() { r.shard.remove(r) }

func (s *watchShard) add(r *runningRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.older = s.newest; r.older == nil {
		s.oldest = r
	} else {
		r.older.newer = r
	}
	s.newest = r
}

func (s *watchShard) remove(r *runningRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.older == nil {
		s.oldest = r.newer
	} else {
		r.older.newer = r.newer
	}
	if r.newer == nil {
		s.newest = r.older
	} else {
		r.newer.older = r.older
	}
}

// watch ends when there is nothing left to look after.
func (w *watchlist) watch() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for range tick.C {
		if w.look() {
			continue
		}
		w.watching.Store(false)
		// A request that came meanwhile relied on this goroutine.
		if w.empty() || !w.watching.CompareAndSwap(false, true) {
			return
		}
	}
}

func (w *watchlist) empty() bool {
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		empty := s.oldest == nil
		s.mu.Unlock()
		if !empty {
			return false
		}
	}
	return true
}

// look cancels the requests of dead keys. It reports false when there was none of
// any key.
func (w *watchlist) look() (any bool) {
	looks := w.looks.Add(1)
	var long []*runningRequest
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		any = any || s.oldest != nil
		// One that has run for less than it may outlive its key has nothing to
		// fear yet.
		for r := s.oldest; r != nil; r = r.newer {
			if time.Duration(looks-r.began)*watchInterval > r.grace {
				long = append(long, r)
			}
		}
		s.mu.Unlock()
	}

	type query struct {
		keyring *apikey.Keyring
		key     apikey.ID
	}
	ends := make(map[query]time.Time)
	for _, r := range long {
		q := query{r.keyring, r.key}
		end, known := ends[q]
		if !known {
			ctx, cancel := context.WithTimeout(context.Background(), watchInterval)
			// A key that cannot be looked up counts as alive: a disk that
			// is gone must not end the streams of everybody.
			end, _ = r.keyring.EndOf(ctx, r.key)
			cancel()
			ends[q] = end
		}
		if !end.IsZero() && r.keyring.Now().Sub(end) >= r.grace {
			r.cancel()
		}
	}
	return any
}
