package apikey_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func TestUsageOutlivesFlushesThatFail(t *testing.T) {
	onEveryStore(t, func(t *testing.T, r *ring) {
		var made []apikey.Issued
		for range 5 {
			made = append(made, r.issue(operator, apikey.Issue{}))
			r.remembered(made[len(made)-1].Token)
		}
		broken := fmt.Errorf("%w: for a test", apikey.ErrUnavailable)
		fail := func() error { return broken }
		for round := range uint64(4) {
			for i, m := range made {
				r.clock.advance(time.Second)
				r.use(m.Token, fmt.Sprint("192.0.2.", i), "ua")
			}
			r.store.before.Store(&fail)
			if err := r.Flush(ctx); !errors.Is(err, apikey.ErrUnavailable) {
				t.Errorf("flush: %v", err)
			}
			r.store.before.Store(nil)
			if pending := r.IndexStats().Pending; pending != len(made) {
				t.Errorf("%d keys wait for a flush, want %d", pending, len(made))
			}
			if got := r.get(operator, made[0].Key.ID).Usage.Count; got != round+1 {
				t.Errorf("after a flush that failed Get tells of %d uses, want %d", got, round+1)
			}
		}
		r.flush()
		if r.IndexStats().Pending != 0 {
			t.Errorf("%d keys still wait", r.IndexStats().Pending)
		}
		for i, m := range made {
			at := r.clock.now().Add(-time.Duration(len(made)-1-i) * time.Second)
			r.wantUsage(m.Key.ID, usage(at, 4, fmt.Sprint("192.0.2.", i), "ua"))
		}
		failed := 0
		for _, err := range r.seen.flushes {
			if err != nil {
				failed++
			}
		}
		if failed != 4 || r.seen.flushed != len(made) || r.seen.dropped != 0 {
			t.Errorf("the observer was told of %d failed flushes, %d written, %d dropped", failed, r.seen.flushed, r.seen.dropped)
		}
	})
}

func TestUsageIsCountedOnceWhateverBecomesOfItsWrite(t *testing.T) {
	for name, c := range scripts {
		t.Run(name, func(t *testing.T) {
			store := &lossy{Store: storagetest.NewMemory()}
			r := openRing(t, store)
			made := r.issue(operator, apikey.Issue{})
			for _, flushes := range []int{1, 2, 3} {
				r.use(made.Token, "192.0.2.1", "ua")
				store.script = slices.Clone(c.script)
				if err := r.Flush(ctx); (err == nil) != (c.want == nil) {
					t.Fatalf("flush: %v", err)
				}
				r.use(made.Token, "192.0.2.1", "ua") // while it is not known
				r.flush()
				if got := r.get(operator, made.Key.ID).Usage.Count; got != uint64(2*flushes) {
					t.Fatalf("%d uses, want %d", got, 2*flushes)
				}
			}
		})
	}
}

// rerun runs every update twice, and another gateway writes between the runs.
type rerun struct {
	apikey.Store
	between func()
}

func (s *rerun) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if s.between != nil {
		undone := errors.New("a conflict")
		if err := s.Store.Update(ctx, func(tx apikey.Tx) error { return errors.Join(fn(tx), undone) }); !errors.Is(err, undone) {
			return err
		}
		s.between()
	}
	return s.Store.Update(ctx, fn)
}

func TestUsesOfOneKeyOnTwoGatewaysAreAllCounted(t *testing.T) {
	shared := storagetest.NewMemory()
	store := &rerun{Store: keepOpen{shared}}
	here, there := openRing(t, store), openRing(t, keepOpen{shared})
	made := here.issue(operator, apikey.Issue{})
	here.use(made.Token, "192.0.2.1", "ua")
	there.use(made.Token, "192.0.2.1", "ua")
	store.between = func() {
		store.between = nil
		there.flush()
	}
	here.flush()
	if got := there.get(operator, made.Key.ID).Usage.Count; got != 2 {
		t.Errorf("%d uses, want 2", got)
	}
}

// hasty is a store that gives up what it is about to write when nobody waits for it
// any more.
type hasty struct {
	apikey.Store
	begun, goOn chan struct{}
}

func (h *hasty) Update(ctx context.Context, fn func(apikey.Tx) error) error {
	if h.begun != nil {
		h.begun <- struct{}{}
		<-h.goOn
		h.begun = nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.Store.Update(ctx, fn)
}

func TestCloseLetsAFlushThatHasBegunComeToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, seen := &hasty{Store: storagetest.NewMemory()}, &observer{}
		k, err := apikey.Open(store, apikey.Settings{FlushInterval: time.Second, Capacity: 1}, apikey.Policy{}, seen)
		if err != nil {
			t.Fatal(err)
		}
		made, err := k.Issue(ctx, operator, apikey.Issue{Name: "n", UserID: "u"})
		if err != nil {
			t.Fatal(err)
		}
		v, err := k.Verify(ctx, made.Token)
		if err != nil {
			t.Fatal(err)
		}
		store.begun, store.goOn = make(chan struct{}), make(chan struct{})
		k.Use(&v, "192.0.2.1", "ua")
		<-store.begun
		closed := make(chan error)
		go func() { closed <- k.Close() }()
		synctest.Wait()
		close(store.goOn)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if len(seen.flushes) != 1 || seen.flushes[0] != nil || seen.flushed != 1 {
			t.Errorf("told of the flushes %v of %d keys", seen.flushes, seen.flushed)
		}
	})
}

func TestCloseSaysWhatItCouldNotWrite(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	made := r.issue(operator, apikey.Issue{})
	r.use(made.Token, "192.0.2.1", "ua")
	r.store.gone.Store(true)
	if err := r.Close(); !errors.Is(err, apikey.ErrUnavailable) {
		t.Errorf("closing: %v", err)
	}
}
