package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/wire"
)

const (
	readers    = 64
	disturbers = 16
	// each is how many requests of a reader count in a round: 64 times 16.
	each = 16
	// others are used to drive a key out of the index, which has room for
	// 2,048 at the least.
	others = 6000
	// Keys that are in use are revoked a few at a time, so that many use each of
	// them; those that are used for the first time, as many as there are readers.
	fewKeys, manyKeys = 4, readers
)

// race is a gateway with a small index, and a connection for each of those who
// read, revoke and disturb.
type race struct {
	gateway                       *gateway.Gateway
	root                          string // the token that creates and revokes
	reading, revoking, disturbing []*wire.Conn
	others                        []gateway.Issued
	// took is how long a revocation takes, about.
	took time.Duration
}

func open(ctx context.Context, caddy, dir string) (_ *race, err error) {
	r := new(race)
	r.gateway, err = gateway.Start(ctx, gateway.Config{
		Name: "gateway", Binary: caddy, Dir: dir,
		// Many threads on few cores: the system stops some of them between
		// the reading of a record and the filling of the index.
		Env:    []string{"GOMAXPROCS=16"},
		Global: "api_keys {\n\tstorage bolt " + filepath.Join(dir, "keys.db") + "\n\tindex_size 1\n}\n", Site: "api_keys\nrespond 200",
	})
	if err != nil {
		return nil, err
	}
	first, err := r.gateway.Issue("acme", "root")
	r.root = first.Token
	for _, group := range []struct {
		conns *[]*wire.Conn
		size  int
	}{{&r.reading, readers}, {&r.revoking, manyKeys}, {&r.disturbing, disturbers}} {
		for len(*group.conns) < group.size && err == nil {
			var conn *wire.Conn
			if conn, err = wire.Dial(r.gateway.Address); err == nil {
				*group.conns = append(*group.conns, conn)
			}
		}
	}
	if err == nil {
		r.others, err = r.issue(others)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *race) close() error {
	for _, conn := range slices.Concat(r.reading, r.revoking, r.disturbing) {
		conn.Close()
	}
	return r.gateway.Stop()
}

// issue makes n keys, over the connections of the readers.
func (r *race) issue(n int) ([]gateway.Issued, error) {
	keys, errs := make([]gateway.Issued, n), make([]error, readers)
	var working sync.WaitGroup
	for w := range readers {
		working.Go(func() {
			for i := w; i < n && errs[w] == nil; i += readers {
				status, answer, err := r.reading[w].Do(http.MethodPost, "/v1/api-keys", r.root, `{"name":"race"}`)
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("a create was answered %d", status)
				}
				if err == nil {
					keys[i], err = gateway.ParseIssued(answer)
				}
				errs[w] = err
			}
		})
	}
	working.Wait()
	return keys, errors.Join(errs...)
}

func (r *race) run(ctx context.Context, rounds int) (f figure, err error) {
	for f.Rounds < rounds {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		n := fewKeys
		if f.Rounds%2 == 1 {
			n = manyKeys
		}
		keys, err := r.issue(n)
		if err != nil {
			return f, err
		}
		if err := r.round(keys, &f); err != nil {
			return f, err
		}
		f.Rounds++
		f.Keys += len(keys)
	}
	f.Misses, err = r.misses()
	return f, err
}

// round revokes keys while they are used. A few have been in use for a while; many
// are used for the first time at about the moment in which the revocation comes
// into force, when the index has to be filled. In two of four rounds others crowd
// the index meanwhile.
func (r *race) round(keys []gateway.Issued, f *figure) error {
	inUse, crowded := len(keys) == fewKeys, f.Rounds/2%2 == 1
	var over atomic.Bool
	var answered [manyKeys]atomic.Bool
	counts, errs := make([]figure, readers), make([]error, readers+manyKeys+disturbers)
	var racing, disturbing sync.WaitGroup
	if crowded {
		for i, conn := range r.disturbing {
			disturbing.Go(func() { errs[readers+manyKeys+i] = r.disturb(conn, &over) })
		}
	}
	for i, conn := range r.reading {
		racing.Go(func() {
			if !inUse {
				time.Sleep(r.took/2 + rand.N(r.took+1))
			}
			at := i % len(keys)
			errs[i] = counts[i].read(conn, keys[at].Token, &answered[at])
		})
	}
	if inUse {
		time.Sleep(2*time.Millisecond + rand.N(8*time.Millisecond))
	}
	start := time.Now()
	var revoking sync.WaitGroup
	for i := range keys {
		revoking.Go(func() {
			errs[readers+i] = r.revoke(r.revoking[i], keys[i].ID)
			answered[i].Store(true)
		})
	}
	revoking.Wait()
	if !inUse {
		r.took = (3*r.took + time.Since(start)) / 4
	}
	racing.Wait()
	over.Store(true)
	disturbing.Wait()
	for _, c := range counts {
		f.Requests += c.Requests
		f.Accepted += c.Accepted
		f.Wrong += c.Wrong
		f.AcceptedBefore += c.AcceptedBefore
	}
	return errors.Join(errs...)
}

func (r *race) revoke(conn *wire.Conn, id string) error {
	status, _, err := conn.Do(http.MethodDelete, "/v1/api-keys/"+id, r.root, "")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("a revoke was answered %d", status)
	}
	return err
}

// read uses a key until enough requests have begun after its revocation was
// answered.
func (f *figure) read(conn *wire.Conn, token string, answered *atomic.Bool) error {
	for f.Requests < each {
		after := answered.Load()
		status, _, err := conn.Do(http.MethodGet, "/", token, "")
		if err != nil {
			return err
		}
		if after {
			f.Requests++
		}
		switch {
		case status == http.StatusOK && after:
			f.Accepted++
		case status == http.StatusOK:
			f.AcceptedBefore++
		case status != http.StatusUnauthorized:
			f.Wrong++
		}
	}
	return nil
}

// disturb uses other keys, one after the other.
func (r *race) disturb(conn *wire.Conn, over *atomic.Bool) error {
	for at := rand.IntN(len(r.others)); !over.Load(); at = (at + 1) % len(r.others) {
		status, _, err := conn.Do(http.MethodGet, "/", r.others[at].Token, "")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("a good key was answered %d", status)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// misses returns how many lookups the index had no answer for.
func (r *race) misses() (int, error) {
	answer, err := http.Get("http://" + r.gateway.Admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "caddy_api_keys_index_misses_total "); ok {
			n, err := strconv.ParseFloat(value, 64)
			return int(n), err
		}
	}
	return 0, errors.Join(errors.New("the metric of index misses is missing"), lines.Err())
}
