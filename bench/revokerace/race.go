package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
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
)

// race is a gateway with a small index, its readers, and those who disturb.
type race struct {
	gateway *gateway.Gateway
	root    string // the token that creates and revokes
	conns   []*wire.Conn
	others  []gateway.Issued
}

func open(ctx context.Context, caddy, dir string) (_ *race, err error) {
	r := new(race)
	r.gateway, err = gateway.Start(ctx, gateway.Config{
		Name: "gateway", Binary: caddy, Dir: dir,
		Global: "api_keys {\n\tstorage bolt " + filepath.Join(dir, "keys.db") + "\n\tindex_size 1\n}\n", Site: "api_keys\nrespond 200",
	})
	if err != nil {
		return nil, err
	}
	first, err := r.gateway.Issue("acme", "root")
	r.root = first.Token
	for len(r.conns) < readers+disturbers && err == nil {
		var conn *wire.Conn
		if conn, err = wire.Dial(r.gateway.Address); err == nil {
			r.conns = append(r.conns, conn)
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
	for _, conn := range r.conns {
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
				status, answer, err := r.conns[w].Do(http.MethodPost, "/v1/api-keys", r.root, `{"name":"race"}`)
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
	keys, err := r.issue(rounds)
	if err != nil {
		return f, err
	}
	revoker, err := wire.Dial(r.gateway.Address)
	if err != nil {
		return f, err
	}
	defer revoker.Close()
	for i := range keys {
		if err := ctx.Err(); err != nil {
			return f, err
		}
		if err := r.round(revoker, &keys[i], i, &f); err != nil {
			return f, err
		}
		f.Rounds++
	}
	f.Misses, err = r.misses()
	return f, err
}

// round revokes one key while it is used. By turns it has been in use for a while,
// or is used for the first time in that moment, when the index has to be filled;
// in two of four rounds others crowd the index meanwhile.
func (r *race) round(revoker *wire.Conn, key *gateway.Issued, number int, f *figure) error {
	var answered, over atomic.Bool
	counts, errs := make([]figure, readers), make([]error, readers+disturbers)
	var reading, disturbing sync.WaitGroup
	if number/2%2 == 1 {
		for i := range disturbers {
			at := readers + i
			disturbing.Go(func() { errs[at] = r.disturb(r.conns[at], &over) })
		}
	}
	early, late := time.Duration(2+rand.IntN(8))*time.Millisecond, time.Duration(0)
	if number%2 == 1 {
		early, late = 0, time.Duration(rand.IntN(1500))*time.Microsecond
	}
	for i := range readers {
		reading.Go(func() {
			time.Sleep(late)
			errs[i] = counts[i].read(r.conns[i], key.Token, &answered)
		})
	}
	time.Sleep(early)
	status, _, err := revoker.Do(http.MethodDelete, "/v1/api-keys/"+key.ID, r.root, "")
	answered.Store(true)
	reading.Wait()
	over.Store(true)
	disturbing.Wait()
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("a revoke was answered %d", status)
	}
	for _, c := range counts {
		f.Requests += c.Requests
		f.Accepted += c.Accepted
		f.Wrong += c.Wrong
		f.AcceptedBefore += c.AcceptedBefore
	}
	return errors.Join(append(errs, err)...)
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
