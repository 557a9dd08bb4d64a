package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/proc"
)

// issueRates is how fast POST /v1/api-keys makes keys, beside how fast the disk
// syncs 4 KiB, measured by turns. The gateway and wrk share all cores.
type issueRates struct {
	Store string
	// Lone is the median latency of a client that is alone, SyncP50 that of a
	// sync; both in milliseconds.
	Lone, SyncP50 []float64
	// LonePerSecond and Of64PerSecond are keys a second from 1 and 64 clients,
	// Syncs what the disk did in the same round.
	LonePerSecond, Of64PerSecond, Syncs []float64
	Of64P99                             []float64 // milliseconds
}

const issueClients = 64

// issues measures an empty store and the largest one.
func (l *lab) issues(ctx context.Context, missing func(string, error)) (all []issueRates) {
	for _, s := range []*keyStore{nil, l.largest()} {
		name := "empty"
		if s != nil {
			name = s.String()
		}
		r, err := l.issue(ctx, name, s)
		if err != nil {
			missing("issuing keys into a store, "+name, err)
			continue
		}
		all = append(all, r)
	}
	return all
}

func (l *lab) issue(ctx context.Context, name string, s *keyStore) (r issueRates, err error) {
	r.Store = name
	path := filepath.Join(l.dir, "issue-empty.db")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	if s != nil {
		if path, err = l.copy(s, "issue"); err != nil {
			return r, err
		}
	}
	defer os.Remove(path)
	g, err := gateway.Start(ctx, gateway.Config{Name: "issue-" + name, Binary: l.ours, Dir: l.dir, Global: keysOption(path, ""), Site: "api_keys\nrespond 200"})
	if err != nil {
		return r, err
	}
	defer g.Stop()
	first, err := g.Issue("acme", "alice")
	if err != nil {
		return r, err
	}
	token := filepath.Join(l.dir, "token-issue")
	if err := writeLines(token, []string{first.Token}); err != nil {
		return r, err
	}
	post := func(clients int) (shot, error) {
		made, err := l.wrk(ctx, "", "post.lua", clients, l.seconds, "http://"+g.Address+"/v1/api-keys", token)
		if err == nil && (made.mismatched > 0 || made.broken > 0) {
			err = fmt.Errorf("%.0f creates were refused, %.0f not answered", made.mismatched, made.broken)
		}
		return made, err
	}
	for round := range min(l.rounds, 7) {
		l.progress("issuing keys, store %s, round %d", name, round+1)
		syncs, err := proc.ProbeSyncs(l.dir, time.Duration(l.seconds)*time.Second)
		if err != nil {
			return r, err
		}
		lone, err := post(1)
		if err != nil {
			return r, err
		}
		many, err := post(issueClients)
		if err != nil {
			return r, err
		}
		r.Syncs, r.SyncP50 = append(r.Syncs, syncs.PerSecond), append(r.SyncP50, syncs.P50.Seconds()*1e3)
		r.Lone, r.LonePerSecond = append(r.Lone, lone.P50), append(r.LonePerSecond, lone.PerSecond())
		r.Of64PerSecond, r.Of64P99 = append(r.Of64PerSecond, many.PerSecond()), append(r.Of64P99, many.P99)
	}
	return r, nil
}
