package main

import (
	"context"
	"regexp"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
)

// scenario is a gateway and a load, to be compared with stock Caddy under the
// same load.
type scenario struct {
	name  string
	to    *target
	with  credentials
	http2 bool // over TLS, instead of HTTP/1.1
	ours  bool
	first int // the first line of its credentials that is used in order
	at    int // from there on, where the next shot in order begins
}

// used goes on behind the credentials that a shot has used, or from the first one on.
func (s *scenario) used(requests float64, lines int) {
	if !s.with.inOrder {
		return
	}
	if s.at += int(requests); s.first+s.at+s.with.take > lines {
		s.at = 0
	}
}

// floorName, longFloorName and secureFloorName are the scenarios in which both sides
// are stock Caddy. What they show is noise.
const (
	floorName       = "stock Caddy again"
	longFloorName   = "stock Caddy again, a minute at a time"
	secureFloorName = "stock Caddy again, TLS and HTTP/2"
	roomyStockName  = "stock Caddy, GOGC=600"
)

// Names of scenarios that figures are taken from.
func hotName(hot int, store string) string {
	if hot == 1 {
		return "1 hot key of " + store
	}
	return short(hot) + " hot keys of " + store
}

func missName(store string) string  { return "always a miss, " + store + " keys" }
func quietName(store string) string { return missName(store) + ", usage off, ten seconds at a time" }
func freshName(store string) string { return "another key each time, of " + store }
func minuteName(name string) string { return name + ", a minute at a time" }
func loggedName(name string) string { return name + ", log format api_keys" }

const (
	// minute is how long a new time alone may wait to be written, in seconds.
	minute = 60
	// tenSeconds is long enough for what is read of a store by turns to be where it
	// stays: in the caches of the processor, or not.
	tenSeconds = 10
)

// leastIndex makes nearly every lookup a miss.
const leastIndex = "\tindex_size 1\n"

const loggedFormat = "format api_keys\n"

const (
	unknownName  = "unknown key refused"
	checksumName = "mistyped key refused"
)

// scenarios starts the gateways whose scenarios match a pattern. What cannot be
// started is told to missing.
func (l *lab) scenarios(ctx context.Context, only *regexp.Regexp, missing func(string, error)) (all []*scenario) {
	targets := make(map[string]*target)
	// Several scenarios can load one gateway, which starts with the first.
	add := func(s scenario, gateway string, start func() (*target, error)) {
		if !only.MatchString(s.name) {
			return
		}
		t := targets[gateway]
		if t == nil {
			var err error
			if t, err = start(); err != nil {
				missing(s.name, err)
				return
			}
			targets[gateway] = t
		}
		s.to = t
		all = append(all, &s)
	}
	main := l.main()
	hot := func(s *keyStore, take int) credentials {
		return credentials{file: s.tokens, scheme: "Bearer", take: min(take, s.sample), hot: true}
	}

	again := func() (*target, error) { return l.stockTarget(ctx, "stock-again") }
	add(scenario{name: floorName, with: hot(main, 10_000)}, "again", again)
	long := hot(main, 10_000)
	long.seconds = minute
	add(scenario{name: longFloorName, with: long}, "again", again)
	add(scenario{name: secureFloorName, with: hot(main, 1), http2: true}, "again", again)

	for _, s := range l.stores {
		ours := func() (*target, error) { return l.oursTarget(ctx, s, gateway.Config{Name: "ours-" + s.String()}) }
		for _, keys := range []int{1, 10_000, 100_000} {
			if keys <= s.keys {
				add(scenario{name: hotName(keys, s.String()), with: hot(s, keys), ours: true}, "ours of "+s.String(), ours)
			}
		}
		if s == main {
			fresh := credentials{file: s.tokens, scheme: "Bearer", take: min(s.keys, 50_000*l.seconds), inOrder: true, writes: true}
			first := min(hotKeys, s.keys-fresh.take) // those before it are in the index
			add(scenario{name: freshName(s.String()), with: fresh, first: first, ours: true}, "fresh", func() (*target, error) {
				return l.oursTarget(ctx, s, gateway.Config{Name: "ours-fresh"}) // its keys would drive out those that are hot elsewhere
			})
			if many := hot(s, hotKeys); s.keys >= hotKeys {
				many.seconds = minute
				add(scenario{name: minuteName(hotName(hotKeys, s.String())), with: many, ours: true}, "ours of "+s.String(), ours)
			}
			refused := credentials{file: l.unknown, scheme: "Bearer", take: 10_000, refused: true}
			add(scenario{name: unknownName, with: refused, ours: true}, "ours of "+s.String(), ours)
			refused.file = l.badChecksum
			add(scenario{name: checksumName, with: refused, ours: true}, "ours of "+s.String(), ours)
			add(scenario{name: hotName(1, s.String()) + ", TLS and HTTP/2", with: hot(s, 1), http2: true, ours: true}, "ours of "+s.String(), ours)
		}
		if s.keys >= hotKeys {
			// Used once before, so that the file is mapped where it is read.
			misses := hot(s, hotKeys)
			misses.seconds = tenSeconds
			add(scenario{name: quietName(s.String()), with: misses, ours: true}, "misses without usage of "+s.String(), func() (*target, error) {
				return l.oursTarget(ctx, s, gateway.Config{Name: "misses-off-" + s.String(), Global: leastIndex + "\tusage off\n"})
			})
			misses.seconds = minute
			add(scenario{name: minuteName(missName(s.String())), with: misses, ours: true}, "misses of "+s.String(), func() (*target, error) {
				return l.oursTarget(ctx, s, gateway.Config{Name: "misses-" + s.String(), Global: leastIndex})
			})
			if s == l.largest() {
				add(scenario{name: minuteName(loggedName(missName(s.String()))), with: misses, ours: true}, "misses with the log format", func() (*target, error) {
					return l.oursTarget(ctx, s, gateway.Config{Name: "misses-log-format", Global: leastIndex, Log: loggedFormat})
				})
			}
		}
	}
	add(scenario{name: hotName(10_000, main.String()) + ", GOGC=100", with: hot(main, 10_000), ours: true}, "GOGC=100", func() (*target, error) {
		return l.oursTarget(ctx, main, gateway.Config{Name: "ours-gogc-100", Env: []string{"GOGC=100"}})
	})
	// With the log that the example Caddyfiles have.
	for _, keys := range []int{1, 10_000, 100_000} {
		add(scenario{name: loggedName(hotName(keys, main.String())), with: hot(main, keys), ours: true}, "log format", func() (*target, error) {
			return l.oursTarget(ctx, main, gateway.Config{Name: "ours-log-format", Log: loggedFormat})
		})
	}
	// As much room for garbage as ours has.
	add(scenario{name: roomyStockName, with: hot(main, 10_000)}, "roomy", func() (*target, error) {
		return l.stockTarget(ctx, "stock-gogc-600", "GOGC=600")
	})
	l.addPeers(ctx, add, hot(main, 10_000))
	return all
}

// addPeers adds other ways to check a key.
func (l *lab) addPeers(ctx context.Context, add func(scenario, string, func() (*target, error)), tokens credentials) {
	add(scenario{name: "Caddy basic_auth, 1 user, hash cache", with: l.basicCredentials()}, "basic_auth", func() (*target, error) {
		return l.basicAuth(ctx)
	})
	add(scenario{name: "caddy-security, signed tokens of 10k users", with: l.signedCredentials()}, "caddy-security", func() (*target, error) {
		return l.caddySecurity(ctx)
	})
	var service *child.Process
	var at string
	asking := func(start func(context.Context, *child.Process, string) (*target, error)) func() (*target, error) {
		return func() (_ *target, err error) {
			if service == nil {
				if service, at, err = l.authService(ctx, tokens); err != nil {
					return nil, err
				}
			}
			return start(ctx, service, at)
		}
	}
	add(scenario{name: "Caddy forward_auth to a Go service", with: tokens}, "forward_auth", asking(l.forwardAuth))
	add(scenario{name: "nginx, no check", with: tokens}, "nginx", func() (*target, error) { return l.nginxTarget(ctx, "nginx", "", "") })
	add(scenario{name: "nginx map", with: tokens}, "nginx map", func() (*target, error) { return l.nginxMap(ctx, tokens) })
	add(scenario{name: "nginx auth_request to a Go service", with: tokens}, "auth_request", asking(l.nginxAuthRequest))
	add(scenario{name: "HAProxy, no check", with: tokens}, "HAProxy", func() (*target, error) { return l.haproxyTarget(ctx, "HAProxy", "") })
	add(scenario{name: "HAProxy map", with: tokens}, "HAProxy map", func() (*target, error) { return l.haproxyMap(ctx, tokens) })
}
