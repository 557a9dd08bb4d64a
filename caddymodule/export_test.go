package caddymodule

// LongRequests tells the tests from outside how many requests are watched, and
// whether anybody watches.
func LongRequests() (requests int, watching bool) {
	running.mu.Lock()
	defer running.mu.Unlock()
	return len(running.requests), running.watching
}
