package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/wire"
)

const (
	writers = 64
	// A gateway lives for at least and at the most so long.
	leastLife, mostLife = 5 * time.Millisecond, 500 * time.Millisecond
	// olderChecked is how many keys of earlier cycles each start is asked for;
	// after the last one it is asked for all.
	olderChecked = 1000
)

// supervisor starts, loads, kills and questions a gateway.
type supervisor struct {
	caddy, dir string
	random     *rand.Rand
	root       string // the token that creates and revokes
	book       *book
	writers    [writers]writer
	figure     figure
	wrong      atomic.Int64
}

func (s *supervisor) run(ctx context.Context, cycles int) (figure, error) {
	var err error
	if s.book, err = openBook(filepath.Join(s.dir, "acknowledged.log")); err != nil {
		return s.figure, err
	}
	defer s.book.close()
	for i := range s.writers {
		s.writers[i] = writer{book: s.book, random: rand.New(rand.NewPCG(s.random.Uint64(), 0))}
	}
	for s.figure.Cycles < cycles {
		g, err := s.start(ctx)
		if err != nil {
			return s.sum(), err
		}
		err = s.compare(g, s.book.sample(s.random, olderChecked))
		if err == nil {
			s.work(g)
			s.figure.Cycles++
		}
		g.Kill()
		if err := errors.Join(err, ctx.Err()); err != nil {
			return s.sum(), err
		}
	}
	g, err := s.start(ctx)
	if err != nil {
		return s.sum(), err
	}
	err = s.compare(g, s.book.all())
	return s.sum(), errors.Join(err, g.Stop())
}

// sum completes the figure.
func (s *supervisor) sum() figure {
	s.figure.Creates, s.figure.Revokes = s.book.creates, s.book.revokes
	s.figure.Wrong = int(s.wrong.Load())
	return s.figure
}

// start starts the gateway. The first one makes the key of the writers.
func (s *supervisor) start(ctx context.Context) (*gateway.Gateway, error) {
	g, err := gateway.Start(ctx, gateway.Config{
		Name: "gateway", Binary: s.caddy, Dir: s.dir,
		Global: "api_keys {\n\tstorage bolt " + filepath.Join(s.dir, "keys.db") + "\n}\n", Site: "api_keys\nrespond 200",
	})
	if err != nil {
		if ctx.Err() == nil {
			s.figure.FailedStarts++
		}
		return nil, err
	}
	if s.root == "" {
		first, err := g.Issue("acme", "root")
		if err != nil {
			g.Kill()
			return nil, err
		}
		s.root = first.Token
	}
	return g, nil
}

// work lets the writers loose and kills the gateway under them.
func (s *supervisor) work(g *gateway.Gateway) {
	var working sync.WaitGroup
	for i := range s.writers {
		working.Go(func() {
			if err := s.writers[i].run(g.Address, s.root); errors.Is(err, errWrong) {
				fmt.Fprintln(os.Stderr, "crash:", err)
				s.wrong.Add(1)
			}
		})
	}
	time.Sleep(leastLife + time.Duration(s.random.Int64N(int64(mostLife-leastLife))))
	g.Kill()
	working.Wait()
}

// compare asks the gateway for keys and notes where it differs from the book.
func (s *supervisor) compare(g *gateway.Gateway, keys []*entry) error {
	queue := make(chan *entry)
	failed := make(chan error, writers)
	var mu sync.Mutex
	var asking sync.WaitGroup
	for range writers {
		asking.Go(func() {
			conn, err := wire.Dial(g.Address)
			if err != nil {
				failed <- err
				return
			}
			defer conn.Close()
			for k := range queue {
				status, _, err := conn.Do(http.MethodGet, "/", k.token, "")
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				s.judge(k, status)
				mu.Unlock()
			}
		})
	}
	var err error
	for _, k := range keys {
		if err != nil {
			break
		}
		select {
		case queue <- k:
		case err = <-failed:
		}
	}
	close(queue)
	asking.Wait()
	close(failed)
	if err != nil {
		return fmt.Errorf("asking for keys after a start: %w", err)
	}
	return <-failed
}

// judge compares one answer with the book. What the gateway said once, it has to
// stand by.
func (s *supervisor) judge(k *entry, status int) {
	switch {
	case status != http.StatusOK && status != http.StatusUnauthorized:
		s.wrong.Add(1)
	case k.state == revoked && status == http.StatusOK:
		s.figure.Revived++
	case k.state == live && status == http.StatusUnauthorized:
		s.figure.Lost++
	case status == http.StatusOK:
		k.state = live
	default:
		k.state = revoked
	}
}
