package apikey

import (
	"sync/atomic"
	"time"
)

// A Clock tells the time.
type Clock func() time.Time

// NewClock returns a clock that does not follow the wall clock backwards: a
// step back would let expired keys live again. While the wall clock is ahead it
// follows it, and forgets the jump when it is undone, each within 10 ms.
func NewClock() Clock {
	c := &steadyClock{begin: time.Now()}
	return func() time.Time { return c.at(time.Since(c.begin), c.both) }
}

// lookInterval is how often a clock looks at the wall clock. To read both clocks of
// the system takes twice as long as to read one, and every request pays for it.
const lookInterval = 10 * time.Millisecond

// steadyClock runs by the monotonic clock of the system.
type steadyClock struct {
	begin  time.Time
	ahead  atomic.Int64 // how far the wall clock was ahead, in nanoseconds
	looked atomic.Int64 // when that was, in nanoseconds since begin
}

// both reads both clocks at one moment: what lies between two readings would look
// like a step.
func (c *steadyClock) both() (elapsed, wall time.Duration) {
	now := time.Now()
	return now.Sub(c.begin), now.Round(0).Sub(c.begin.Round(0))
}

// at returns the time when the clock has run for elapsed.
func (c *steadyClock) at(elapsed time.Duration, both func() (elapsed, wall time.Duration)) time.Time {
	if int64(elapsed)-c.looked.Load() >= int64(lookInterval) {
		var wall time.Duration
		elapsed, wall = both()
		c.ahead.Store(int64(max(0, wall-elapsed)))
		c.looked.Store(int64(elapsed))
	}
	return c.begin.Round(0).Add(elapsed + time.Duration(c.ahead.Load()))
}

// fromMillis is the inverse of [time.Time.UnixMilli], with zero for "not set".
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
