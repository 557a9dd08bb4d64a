package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
)

// target is a gateway under load.
type target struct {
	name            string
	address, secure string
	admin           string // of a Caddy
	// checks says that it looks at credentials.
	checks bool
	// processes are charged for its work: the gateway, and a service that it
	// asks.
	processes []*child.Process
	store     string // the file that it has its keys in, of ours
}

func (t *target) cpu() (sum time.Duration, err error) {
	for _, p := range t.processes {
		spent, err := p.CPU()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", t.name, err)
		}
		sum += spent
	}
	return sum, nil
}

// proxy is what stands in every Caddyfile behind the part that is compared.
func (l *lab) proxy() string { return "reverse_proxy " + l.upstream }

// caddyTarget starts a Caddy that speaks TLS too.
func (l *lab) caddyTarget(ctx context.Context, c gateway.Config) (*target, error) {
	c.Certificate, c.Key = l.certificate, l.key
	g, err := l.caddy(ctx, c)
	if err != nil {
		return nil, err
	}
	return &target{name: c.Name, address: g.Address, secure: g.Secure, admin: g.Admin, processes: []*child.Process{g.Process}}, nil
}

func (l *lab) stockTarget(ctx context.Context, name string, env ...string) (*target, error) {
	return l.caddyTarget(ctx, gateway.Config{Name: name, Binary: l.stock, Env: env, Site: l.proxy()})
}

// oursTarget starts a gateway over a copy of a store. What c has for the global
// options stands in api_keys.
func (l *lab) oursTarget(ctx context.Context, s *keyStore, c gateway.Config) (*target, error) {
	path, err := l.copy(s, c.Name)
	if err != nil {
		return nil, err
	}
	c.Binary, c.Global, c.Site = l.ours, keysOption(path, c.Global), "api_keys\n"+l.proxy()
	t, err := l.caddyTarget(ctx, c)
	if err == nil {
		t.checks, t.store = true, path
	}
	return t, err
}

// readStore brings the store into the page cache. Between two loads a machine may take
// back memory that lies idle; a gateway that is in use keeps it.
func (t *target) readStore() error {
	if t.store == "" {
		return nil
	}
	f, err := os.Open(t.store)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// keysOption is the global option of a gateway with keys in a file.
func keysOption(path, options string) string {
	return "api_keys {\n\tstorage bolt " + path + "\n" + options + "}\n"
}
