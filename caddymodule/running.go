package caddymodule

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// Requests that run for long are watched: when their key dies, they are
// cancelled. A request is only looked at when it has run for as long as one may
// outlive its key, so that the rest pay for a timer and nothing else.

// running are the long requests of the process. They outlive the configuration
// that let them in.
var running = watchlist{requests: make(map[*longRequest]struct{})}

type watchlist struct {
	mu       sync.Mutex
	requests map[*longRequest]struct{}
	watching bool // a goroutine looks after them
}

// longRequest is a request that an accepted key has begun.
type longRequest struct {
	keyring *apikey.Keyring
	key     apikey.ID
	grace   time.Duration
	cancel  context.CancelFunc
	timer   *time.Timer
	ended   bool // guarded by the watchlist
}

// watchInterval is how often the keys of long requests are looked at.
const watchInterval = time.Second

// limited returns a request that is cancelled when it still runs so long after its
// key has died, and what must be called when it has ended.
func limited(r *http.Request, keyring *apikey.Keyring, key apikey.ID, grace time.Duration) (*http.Request, func()) {
	ctx, cancel := context.WithCancel(r.Context())
	long := &longRequest{keyring: keyring, key: key, grace: grace, cancel: cancel}
	long.timer = time.AfterFunc(grace, func() { running.add(long) })
	return r.WithContext(ctx), long.end
}

func (l *longRequest) end() {
	if !l.timer.Stop() {
		running.remove(l)
	}
	l.cancel()
}

func (w *watchlist) add(l *longRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.ended {
		return // in the moment in which the timer fired
	}
	w.requests[l] = struct{}{}
	if !w.watching {
		w.watching = true
		go w.watch()
	}
}

func (w *watchlist) remove(l *longRequest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.ended = true
	delete(w.requests, l)
}

// watch ends when there is nothing left to look after.
func (w *watchlist) watch() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for range tick.C {
		if !w.look() {
			return
		}
	}
}

// look cancels the requests of dead keys. It reports false when none are left.
func (w *watchlist) look() bool {
	w.mu.Lock()
	all := make([]*longRequest, 0, len(w.requests))
	for l := range w.requests {
		all = append(all, l)
	}
	w.watching = len(all) > 0
	w.mu.Unlock()

	type query struct {
		keyring *apikey.Keyring
		key     apikey.ID
	}
	ends := make(map[query]time.Time)
	for _, l := range all {
		q := query{l.keyring, l.key}
		end, known := ends[q]
		if !known {
			ctx, cancel := context.WithTimeout(context.Background(), watchInterval)
			// A key that cannot be looked up counts as alive: a disk that
			// is gone must not end the streams of everybody.
			end, _ = l.keyring.EndOf(ctx, l.key)
			cancel()
			ends[q] = end
		}
		if !end.IsZero() && l.keyring.Now().Sub(end) >= l.grace {
			l.cancel()
			w.remove(l)
		}
	}
	return len(all) > 0
}
