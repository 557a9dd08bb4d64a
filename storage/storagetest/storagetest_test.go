package storagetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	Run(t, func(t *testing.T) apikey.Store { return NewMemory() })
}

func TestGatewayKeepsTheContract(t *testing.T) {
	Run(t, func(t *testing.T) apikey.Store { return NewCluster(NewMemory()).Gateway() })
}

func TestGatewaysOfAClusterKeepTheContractOfWatcher(t *testing.T) {
	RunWatch(t, func(t *testing.T) (one, other apikey.Store) {
		c := NewCluster(NewMemory())
		return c.Gateway(), c.Gateway()
	})
}

func TestGatewayRunsUpdatesTwiceAndOnlyTheLastRunCounts(t *testing.T) {
	g := NewCluster(NewMemory()).Gateway()
	runs := 0
	if err := g.Update(context.Background(), func(tx apikey.Tx) error {
		runs++
		return tx.Put(keys, []byte{byte('0' + runs)}, nil)
	}); err != nil {
		t.Fatal(err)
	}
	if got := (kit{g}).scan(t, keys, apikey.Range{}); runs != 2 || !slices.Equal(got, []string{"2="}) {
		t.Errorf("%d runs left %q, want 2 runs that leave the key of the second", runs, got)
	}
}

func TestGatewayLosesAnswersByTurnsAfterAndWithoutApplying(t *testing.T) {
	c := NewCluster(NewMemory())
	g := c.Gateway()
	w := watch(t, kit{c.Gateway()})
	g.LoseAnswers(2)
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		err := g.Update(context.Background(), func(tx apikey.Tx) error { return tx.Put(keys, []byte(key), nil) })
		if lost := errors.Is(err, apikey.ErrOutcomeUnknown); lost != (key == "b" || key == "d" || key == "f") || !lost && err != nil {
			t.Errorf("update %s was answered with %v", key, err)
		}
		if key != "d" {
			if got := w.next(); got != "keys "+key {
				t.Errorf("reported %q, want %s", got, key)
			}
		}
	}
	if got, want := (kit{g}).scan(t, keys, apikey.Range{}), []string{"a=", "b=", "c=", "e=", "f="}; !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

func TestGatewaySpoilsWhatItLentWhenTheTransactionEnds(t *testing.T) {
	g := NewCluster(NewMemory()).Gateway()
	kit{g}.put(t, keys, "key", "value")
	var kept []byte
	if err := g.View(context.Background(), func(r apikey.Reader) (err error) {
		kept, err = r.Get(keys, []byte("key"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if string(kept) == "value" {
		t.Error("a value that was kept is still good")
	}
	kit{g}.want(t, keys, "key", "value")
}

func TestGatewayLosesTrackOfChangesWhenAsked(t *testing.T) {
	c := NewCluster(NewMemory())
	one, other := c.Gateway(), c.Gateway()
	ones, others := watch(t, kit{one}), watch(t, kit{other})
	one.LoseTrack()
	if err := within(t, ones.ended); !errors.Is(err, ErrLostTrack) {
		t.Errorf("Watch returned %v", err)
	}
	kit{other}.put(t, keys, "missed", "1")
	ones = watch(t, kit{one})
	kit{other}.put(t, keys, "seen", "1")
	if got := ones.next(); got != "keys seen" {
		t.Errorf("after losing track, Watch reported %q first", got)
	}
	if got := others.next(); got != "keys missed" {
		t.Errorf("the other gateway was reported %q", got)
	}
}
