package apikey

import "time"

// A Clock tells the time.
type Clock func() time.Time

// NewClock returns a clock that does not follow the wall clock backwards: a
// step back would let expired keys live again. While the wall clock is ahead it
// follows it, and forgets the jump as soon as it is undone.
func NewClock() Clock {
	begin := time.Now()
	return func() time.Time {
		now := time.Now()
		return steady(begin, now.Round(0), now.Sub(begin))
	}
}

// steady returns the time of a clock that began at begin and has run for
// elapsed, or what the wall clock says when that is later.
func steady(begin, wall time.Time, elapsed time.Duration) time.Time {
	if behind := elapsed - time.Duration(wall.UnixNano()-begin.UnixNano()); behind > 0 {
		return wall.Add(behind)
	}
	return wall
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
