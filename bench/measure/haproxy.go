package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

// haproxyTarget starts an HAProxy. rules stand in its frontend.
func (l *lab) haproxyTarget(ctx context.Context, name, rules string) (*target, error) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		return nil, err
	}
	address, err := child.FreeAddress()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`global
	nbthread 1
	maxconn 4096
defaults
	mode http
	timeout connect 5s
	timeout client 600s
	timeout server 600s
	option http-keep-alive
	http-reuse always
frontend f
	bind %s
%s	default_backend b
backend b
	server s %s
`, address, rules, l.upstream)
	path := filepath.Join(l.dir, strings.ReplaceAll(name, " ", "-")+".cfg")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := l.start(ctx, name, address, child.Command{Args: []string{"haproxy", "-db", "-f", path}, Cores: l.gatewayCore})
	return &target{name: name, address: address, processes: []*child.Process{p}}, err
}

// haproxyMap starts an HAProxy that has the tokens in a map.
func (l *lab) haproxyMap(ctx context.Context, tokens credentials) (*target, error) {
	entries, err := tokenMap(tokens, func(i int, token string) string { return fmt.Sprintf("%s k%d", token, i) })
	if err != nil {
		return nil, err
	}
	path := filepath.Join(l.dir, "haproxy-map")
	if err := writeLines(path, entries); err != nil {
		return nil, err
	}
	t, err := l.haproxyTarget(ctx, "HAProxy map", fmt.Sprintf(`	http-request set-var(txn.key) http_auth_bearer,map_str(%s)
	http-request return status 401 if !{ var(txn.key) -m found }
	http-request set-header X-Key-Id %%[var(txn.key)]
	http-request del-header Authorization
`, path))
	if t != nil {
		t.checks = true
	}
	return t, err
}

// tokenMap writes an entry for each token of a load.
func tokenMap(tokens credentials, entry func(i int, token string) string) (entries []string, err error) {
	f, err := os.Open(tokens.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for len(entries) < tokens.take && lines.Scan() {
		entries = append(entries, entry(len(entries), lines.Text()))
	}
	return entries, lines.Err()
}
