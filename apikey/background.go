package apikey

import (
	"bytes"
	"context"
	"errors"
	"time"
)

const (
	// closeTimeout bounds the writes at the end: who stops a server must not
	// wait for a store that is gone.
	closeTimeout = 5 * time.Second
	// watchRetry is the pause before a lost watch is taken up again.
	watchRetry = time.Second
)

// start begins the work that goes on until Close.
func (k *Keyring) start() {
	ctx, stop := context.WithCancel(context.Background())
	k.stop, k.closing = stop, ctx.Done()
	// What is being written when the Keyring closes is written to its end. Uses whose
	// outcome nobody has waited for would be counted again by the last flush.
	writing, abandon := context.WithCancel(context.Background())
	k.abandon = abandon
	k.stopped.Go(func() { k.flushUntil(ctx, writing) })
	k.stopped.Go(func() { k.countUntil(ctx) })
	k.stopped.Go(func() { k.tellUntil(ctx) })
	if watcher, ok := k.store.(Watcher); ok {
		k.index.close()
		k.stopped.Go(func() { k.watchUntil(ctx, watcher) })
	}
}

// Close brings all usage to the store and closes it.
func (k *Keyring) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	context.AfterFunc(ctx, k.abandon)
	k.stop()
	k.stopped.Wait()
	err := k.flush(ctx, true)
	k.tellRest(ctx)
	return errors.Join(err, k.store.Close())
}

// Flush brings all usage to the store now.
func (k *Keyring) Flush(ctx context.Context) error { return k.flush(ctx, true) }

func (k *Keyring) flush(ctx context.Context, all bool) error {
	k.flushing.Lock()
	defer k.flushing.Unlock()
	start := time.Now()
	if untold := k.recorder.moves.turn(k.clock().UnixMilli()); untold > 0 {
		k.observer.ClientChangesUntold(untold)
	}
	var took time.Duration // of the slice before
	view := func(ctx context.Context, fn func(Reader) error) error { return k.view(ctx, "compare", fn) }
	keys, err := k.recorder.flush(ctx, k.clock().UnixMilli(), view, func(ctx context.Context, fn func(Tx) error, lost func()) error {
		if !all {
			k.rest(start, took)
		}
		began := time.Now()
		defer func() { took = time.Since(began) }()
		return k.updateNoting(ctx, "flush", fn, lost)
	}, all)
	if keys > 0 || err != nil {
		k.observer.UsageFlushed(keys, time.Since(start), err)
	}
	if dropped := k.recorder.takeDropped(); dropped > 0 {
		k.observer.UsageDropped(dropped)
	}
	if err != nil {
		return unavailable("writing usage", err)
	}
	return nil
}

// rest pauses between two slices of a flush for as long as one took, so that not all
// that the gateway is asked meanwhile waits for the whole of it. A flush that has
// taken long does not rest: usage must be in the store within the interval.
func (k *Keyring) rest(start time.Time, took time.Duration) {
	if took == 0 || time.Since(start)+took > k.flushEvery/2 {
		return
	}
	select {
	case <-k.closing:
	case <-time.After(took):
	}
}

func (k *Keyring) flushUntil(ctx, writing context.Context) {
	tick := time.NewTicker(k.flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.flush(writing, false) // the observer is told; the usage is kept
			k.writeRenewals(ctx)
		}
	}
}

// watchUntil keeps the index true to what other processes write. While nobody
// says what they do, every check asks the store.
func (k *Keyring) watchUntil(ctx context.Context, watcher Watcher) {
	for ctx.Err() == nil {
		synced := func() {
			k.kindsChanged() // maybe, while nobody told
			k.index.open()
		}
		watcher.Watch(ctx, synced, func(t Table, key []byte) {
			if t == TableKeys && len(key) == len(ID{}) {
				k.index.change(ID(key))
			}
			if t == TableCounts && bytes.HasPrefix(key, []byte("foreign/")) {
				k.kindsChanged()
			}
		})
		k.index.close()
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
}
