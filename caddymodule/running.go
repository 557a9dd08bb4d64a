package caddymodule

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

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
	began   uint32 // the looks there had been

	mu     sync.Mutex // held while it is being cut
	ending ending     // nil: it has been answered, or cut

	shard        *watchShard
	older, newer *runningRequest // guarded by the shard
}

// watchInterval is how often the keys of running requests are looked at.
const watchInterval = time.Second

// watched returns a request that is cancelled when it still runs so long after its
// key has died. The second result must be ended with it.
func (l *watchlist) watched(w http.ResponseWriter, r *http.Request, id *identity, grace time.Duration) (*http.Request, *runningRequest) {
	running := &id.running
	if running.shard != nil { // a gate before this one has it
		running = new(runningRequest)
	}
	running.keyring, running.key, running.grace = id.keyring, id.verdict.KeyID, grace
	running.began, running.shard = l.looks.Load(), &l.shards[rand.Uint32()%uint32(len(l.shards))]
	running.ending, r = endingOf(w, r)
	running.shard.add(running)
	if !l.watching.Load() && l.watching.CompareAndSwap(false, true) {
		go l.watch()
	}
	return r, running
}

// end leaves the context that the request may have to the server, which cancels all of
// a request when it has been answered. To do it here costs more: the context then has
// to be taken out of the server's.
func (r *runningRequest) end() {
	r.shard.remove(r)
	r.mu.Lock()
	r.ending = nil
	r.mu.Unlock()
}

// cut ends the request from outside, once. Meanwhile it cannot be answered: what comes
// next on its connection may be another's.
func (r *runningRequest) cut() {
	if !r.mu.TryLock() {
		return // it is being cut, or has just been answered
	}
	defer r.mu.Unlock()
	if r.ending == nil {
		return
	}
	endBy(r.ending)
	r.ending = nil
	caddy.Log().Named(appName).Info("cancelled a request whose key has ended", zap.Stringer("api_key_id", r.key))
}

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
func (l *watchlist) watch() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for range tick.C {
		if l.look() {
			continue
		}
		l.watching.Store(false)
		// A request that came meanwhile relied on this goroutine.
		if l.empty() || !l.watching.CompareAndSwap(false, true) {
			return
		}
	}
}

func (l *watchlist) empty() bool {
	for i := range l.shards {
		s := &l.shards[i]
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
func (l *watchlist) look() (any bool) {
	looks := l.looks.Add(1)
	var long []*runningRequest
	for i := range l.shards {
		s := &l.shards[i]
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
			go r.cut()
		}
	}
	return any
}
