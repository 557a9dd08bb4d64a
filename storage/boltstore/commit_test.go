//go:build linux

package boltstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// queue is a store whose commits wait for the test, so that what is started
// meanwhile waits behind them, in the order in which it was started.
type queue struct {
	faulty
	release chan struct{}
	commits int
	calls   sync.WaitGroup
}

// whileCommitting runs test in a bubble of package synctest, while the commit of
// the first update of a store waits for the queue to be released.
func whileCommitting(t *testing.T, first func(apikey.Tx) error, test func(t *testing.T, q *queue)) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{faulty: open(t), release: make(chan struct{})}
		q.commit = func(tx *bolt.Tx) error {
			q.commits++
			<-q.release
			return tx.Commit()
		}
		q.start(context.Background(), first, nil)
		test(t, q)
	})
}

// start calls Update, and returns when it waits.
func (q *queue) start(ctx context.Context, fn func(apikey.Tx) error, answered func(error)) {
	q.calls.Go(func() {
		err := q.Update(ctx, fn)
		if answered != nil {
			answered(err)
		} else if err != nil {
			q.t.Errorf("updating: %v", err)
		}
	})
	synctest.Wait()
}

// finish lets the commits go on, and returns how many there were when all
// updates are answered.
func (q *queue) finish() int {
	close(q.release)
	q.calls.Wait()
	return q.commits
}

func put(key string) func(apikey.Tx) error {
	return func(tx apikey.Tx) error { return tx.Put(apikey.TableKeys, []byte(key), nil) }
}

func TestUpdatesThatWaitShareOneCommit(t *testing.T) {
	for waiting, want := range map[int]int{0: 1, 1: 2, 64: 2, maxGroup: 2, maxGroup + 1: 3} {
		t.Run(fmt.Sprint(waiting, " wait"), func(t *testing.T) {
			whileCommitting(t, put("first"), func(t *testing.T, q *queue) {
				for i := range waiting {
					q.start(context.Background(), put(fmt.Sprint(i)), nil)
				}
				if got := q.finish(); got != want {
					t.Errorf("%d commits, want %d", got, want)
				}
			})
		})
	}
}

func TestUpdatesThatWriteNothingCommitNothing(t *testing.T) {
	whileCommitting(t, put("first"), func(t *testing.T, q *queue) {
		for range 10 {
			q.start(context.Background(), func(tx apikey.Tx) error {
				if value, err := tx.Get(apikey.TableKeys, []byte("first")); value == nil {
					t.Errorf("it does not see what was committed before it: %v", err)
				}
				return nil
			}, nil)
		}
		if got := q.finish(); got != 1 {
			t.Errorf("%d commits, want only the first", got)
		}
	})
}

func TestAnUpdateWhoseContextEndsInTheQueueNeverRuns(t *testing.T) {
	whileCommitting(t, put("first"), func(t *testing.T, q *queue) {
		ctx, cancel := context.WithCancel(context.Background())
		var answer error
		q.start(ctx, func(apikey.Tx) error {
			t.Error("it ran")
			return nil
		}, func(err error) { answer = err })
		cancel()
		synctest.Wait()
		if !errors.Is(answer, context.Canceled) {
			t.Errorf("before the commit was through, it was answered with %v", answer)
		}
		q.finish()
	})
}

func TestCloseRefusesWhatWaitsAndFinishesWhatRuns(t *testing.T) {
	whileCommitting(t, put("first"), func(t *testing.T, q *queue) {
		var answer error
		q.start(context.Background(), put("waiting"), func(err error) { answer = err })
		q.calls.Go(func() {
			if err := q.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
		synctest.Wait()
		if !errors.Is(answer, apikey.ErrUnavailable) {
			t.Errorf("the update that waited was answered with %v", answer)
		}
		q.finish()
	})
}

// What an update saw of others in its group was never in force when their commit
// fails. So that failure is its answer too, whether it wrote, refused or did
// nothing: "it is revoked already" must not be said of a revocation that is lost.
func TestNobodyIsAnsweredOnTheStrengthOfACommitThatFails(t *testing.T) {
	whileCommitting(t, put("first"), func(t *testing.T, q *queue) {
		sawIt := errors.New("there is one already")
		second := func(tx apikey.Tx) error {
			if value, _ := tx.Get(apikey.TableKeys, []byte("one")); value != nil {
				return sawIt
			}
			return errors.New("it does not see what came before it in its group")
		}
		unavailable := func(err error) {
			if !errors.Is(err, apikey.ErrUnavailable) || errors.Is(err, sawIt) {
				t.Errorf("answered %v", err)
			}
		}
		q.start(context.Background(), put("one"), unavailable)
		q.start(context.Background(), second, unavailable)
		q.start(context.Background(), func(tx apikey.Tx) error {
			if err := second(tx); err != sawIt {
				return err
			}
			return nil
		}, unavailable)
		q.nextCommit(func(*bolt.Tx) error { return errIO })
		q.finish()
		if err := q.Update(context.Background(), second); errors.Is(err, sawIt) {
			t.Error("what failed is in force")
		}
	})
}

// bbolt's cursors stop at a leaf that was emptied in their own transaction when
// they go backwards.
func TestAScanBackwardsMissesNothingBehindADeletion(t *testing.T) {
	key := func(i int) []byte { return fmt.Appendf(nil, "%06d", i) }
	fill := func(tx apikey.Tx) (err error) {
		for i := range 300 {
			err = errors.Join(err, tx.Put(apikey.TableUsage, key(i), make([]byte, 200)))
		}
		return err
	}
	whileCommitting(t, fill, func(t *testing.T, q *queue) {
		seen := 0
		q.start(context.Background(), func(tx apikey.Tx) (err error) {
			for i := 100; i < 200; i++ {
				err = errors.Join(err, tx.Delete(apikey.TableUsage, key(i)))
			}
			return err
		}, nil)
		q.start(context.Background(), func(tx apikey.Tx) error {
			return tx.Scan(apikey.TableUsage, apikey.Range{Reverse: true}, func(_, _ []byte) bool {
				seen++
				return true
			})
		}, nil)
		q.finish()
		if seen != 200 {
			t.Errorf("the scan saw %d records of 200", seen)
		}
	})
}
