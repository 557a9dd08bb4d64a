package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
)

// lab holds what all measurements need: a folder, programs, processor cores and
// the service behind every gateway.
type lab struct {
	dir                   string
	gatewayCore, loadCore string
	seconds, rounds       int
	stores                []*keyStore // from the smallest to the largest
	upstream              string      // an address
	certificate, key      string      // files
	stock, ours           string      // binaries
	authsvc, once         string
	unknown, badChecksum  string // files of tokens
	running               []*child.Process
	progress              func(format string, args ...any)
}

// needed are the programs without which nothing can be measured; the others only
// take a scenario each.
var needed = []string{"taskset", "wrk", "nginx"}

// open builds the programs and starts the upstream.
func (l *lab) open(ctx context.Context) error {
	for _, name := range needed {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is missing: apt-get install wrk nginx-light haproxy nghttp2-client", name)
		}
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	l.progress("building stock Caddy and ours")
	for _, b := range []struct {
		folder string
		path   *string
	}{{"bench/stock", &l.stock}, {"cmd/caddy", &l.ours}, {"bench/authsvc", &l.authsvc}, {"bench/once", &l.once}} {
		var err error
		if *b.path, err = child.Build(ctx, b.folder, l.dir); err != nil {
			return err
		}
	}
	if err := l.writeScripts(); err != nil {
		return err
	}
	var err error
	if l.certificate, l.key, err = writeCertificate(l.dir); err != nil {
		return err
	}
	if l.upstream, err = child.FreeAddress(); err != nil {
		return err
	}
	return l.startUpstream(ctx)
}

// start starts a program that runs until the lab is closed, and waits until it
// listens at an address.
func (l *lab) start(ctx context.Context, name, address string, c child.Command) (*child.Process, error) {
	c.Log = filepath.Join(l.dir, name+".log")
	p, err := child.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	l.running = append(l.running, p)
	return p, p.Await(func() bool { return child.Listens(address) }, 30*time.Second)
}

// caddy starts a Caddy that runs until the lab is closed.
func (l *lab) caddy(ctx context.Context, c gateway.Config) (*gateway.Gateway, error) {
	c.Dir, c.Cores = l.dir, l.gatewayCore
	g, err := gateway.Start(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	l.running = append(l.running, g.Process)
	return g, nil
}

// close ends all that the lab has started, the last first.
func (l *lab) close() { l.closeBut(0) }

// closeBut does so but for the first n.
func (l *lab) closeBut(n int) {
	for len(l.running) > n {
		last := len(l.running) - 1
		if err := l.running[last].Stop(); err != nil {
			l.progress("%v", err)
		}
		l.running = l.running[:last]
	}
}

func firstLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	return lines.Text(), lines.Err()
}
