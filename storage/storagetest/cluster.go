package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// ErrLostTrack is what [Gateway.Watch] returns after [Gateway.LoseTrack].
var ErrLostTrack = errors.New("watch lost track of the changes")

// Cluster is one store that several gateways share. Its gateways use every
// freedom that the contract leaves a driver, so that code which relies on more
// than the contract fails here first.
type Cluster struct {
	inner apikey.Store

	mu      sync.Mutex // held by each update that counts: the order of the changes
	changes []change
	more    chan struct{} // closed when there are more changes, and replaced
}

type change struct {
	table apikey.Table
	key   []byte
}

// NewCluster returns a cluster whose records are in inner. Inner remains the
// caller's to close, after every gateway.
func NewCluster(inner apikey.Store) *Cluster {
	return &Cluster{inner: inner, more: make(chan struct{})}
}

// Gateway returns one more gateway of the cluster.
func (c *Cluster) Gateway() *Gateway {
	return &Gateway{cluster: c, lost: make(chan struct{}), closing: make(chan struct{})}
}

// Gateway is the store as one gateway of a [Cluster] sees it:
//
//   - Update runs its function twice, the first time for nothing, and another
//     gateway may write between the two runs.
//   - Byte strings that it hands out are overwritten when the transaction ends.
//   - Answers of updates get lost when asked for by [Gateway.LoseAnswers].
//   - Watch reports what any gateway of the cluster wrote, this one included.
//
// It implements [apikey.Store] and [apikey.Watcher].
type Gateway struct {
	cluster *Cluster

	running sync.RWMutex // held for reading by transactions, so that Close waits for them
	closing chan struct{}

	mu        sync.Mutex // guards what follows
	loseEvery int
	updates   int
	lost      chan struct{} // closed to make the watches that run lose track, and replaced
}

var _ interface {
	apikey.Store
	apikey.Watcher
} = (*Gateway)(nil)

// LoseAnswers makes every nth update that would have succeeded fail with
// [apikey.ErrOutcomeUnknown] instead: by turns after it was applied, which
// comes first, and without. Zero, the default, loses none.
func (g *Gateway) LoseAnswers(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loseEvery, g.updates = n, 0
}

// LoseTrack makes every Watch of this gateway that runs now return
// [ErrLostTrack]. What it has not reported yet, it never will.
func (g *Gateway) LoseTrack() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.lost)
	g.lost = make(chan struct{})
}

type fate int

const (
	answered fate = iota
	lostAfterApplying
	lostWithoutApplying
)

// nextFate says what becomes of the update that is about to succeed.
func (g *Gateway) nextFate() fate {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.updates++
	switch {
	case g.loseEvery == 0 || g.updates%g.loseEvery != 0:
		return answered
	case g.updates/g.loseEvery%2 == 1:
		return lostAfterApplying
	default:
		return lostWithoutApplying
	}
}

// begin refuses when the gateway is closed, and else keeps it open until end.
func (g *Gateway) begin() (end func(), err error) {
	g.running.RLock()
	select {
	case <-g.closing:
		g.running.RUnlock()
		return nil, errGatewayClosed
	default:
		return g.running.RUnlock, nil
	}
}

var errGatewayClosed = fmt.Errorf("%w: the gateway is closed", apikey.ErrUnavailable)

// View implements [apikey.Store].
func (g *Gateway) View(ctx context.Context, fn func(apikey.Reader) error) error {
	end, err := g.begin()
	if err != nil {
		return err
	}
	defer end()
	return g.cluster.inner.View(ctx, func(r apikey.Reader) error {
		lent := lender{from: r}
		defer lent.takeBack()
		return fn(&lent)
	})
}

var errForNothing = errors.New("this run counts for nothing")

// Update implements [apikey.Store].
func (g *Gateway) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	end, err := g.begin()
	if err != nil {
		return err
	}
	defer end()

	c := g.cluster
	if err := c.inner.Update(ctx, func(tx apikey.Tx) error {
		_ = new(recorder).run(tx, fn)
		return errForNothing
	}); !errors.Is(err, errForNothing) {
		return err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	var (
		wrote  recorder
		become fate
	)
	err = c.inner.Update(ctx, func(tx apikey.Tx) error {
		wrote, become = recorder{}, answered
		if err := wrote.run(tx, fn); err != nil {
			return err
		}
		if become = g.nextFate(); become == lostWithoutApplying {
			return errForNothing
		}
		return nil
	})
	if become == lostWithoutApplying {
		return fmt.Errorf("%w: lost on purpose, and not applied", apikey.ErrOutcomeUnknown)
	}
	if err != nil {
		return err
	}
	c.changes = append(c.changes, wrote.changes...)
	close(c.more)
	c.more = make(chan struct{})
	if become == lostAfterApplying {
		return fmt.Errorf("%w: lost on purpose, and applied", apikey.ErrOutcomeUnknown)
	}
	return nil
}

// since returns the changes from the nth on, and a channel that is closed when
// there are more.
func (c *Cluster) since(n int) ([]change, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes[n:], c.more
}

// Watch implements [apikey.Watcher].
func (g *Gateway) Watch(ctx context.Context, synced func(), changed func(apikey.Table, []byte)) error {
	g.mu.Lock()
	lost := g.lost
	g.mu.Unlock()
	earlier, _ := g.cluster.since(0)
	seen := len(earlier)
	synced()

	ready := make(chan struct{})
	close(ready) // the first turn waits for nothing
	var more <-chan struct{} = ready
	for {
		select {
		case <-more:
		case <-ctx.Done():
		case <-lost:
		case <-g.closing:
		}
		var changes []change
		changes, more = g.cluster.since(seen)
		for _, each := range changes {
			if err := g.stopped(ctx, lost); err != nil {
				return err
			}
			key := bytes.Clone(each.key)
			changed(each.table, key)
			overwrite(key)
			seen++
		}
		if err := g.stopped(ctx, lost); err != nil {
			return err
		}
	}
}

func (g *Gateway) stopped(ctx context.Context, lost <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-lost:
		return ErrLostTrack
	case <-g.closing:
		return errGatewayClosed
	default:
		return nil
	}
}

// Close ends the watches of this gateway and waits for its transactions. The
// cluster and its other gateways go on.
func (g *Gateway) Close() error {
	g.mu.Lock()
	select {
	case <-g.closing:
	default:
		close(g.closing)
	}
	g.mu.Unlock()
	g.running.Lock()
	defer g.running.Unlock()
	return nil
}
