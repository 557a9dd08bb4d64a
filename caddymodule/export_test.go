package caddymodule

// WithConn is what Caddy's server calls for each connection.
var WithConn = withConn

// WatchedRequests tells the tests from outside how many requests are watched, and
// whether anybody watches.
func WatchedRequests() (requests int, watching bool) {
	for i := range running.shards {
		s := &running.shards[i]
		s.mu.Lock()
		for r := s.oldest; r != nil; r = r.newer {
			requests++
		}
		s.mu.Unlock()
	}
	return requests, running.watching.Load()
}
