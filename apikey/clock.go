package apikey

import "time"

// A Clock tells the time.
type Clock func() time.Time

// NewClock returns a clock that does not follow the wall clock backwards: a
// step back would let expired keys live again. While the wall clock is ahead it
// follows it, and forgets the jump as soon as it is undone.
func NewClock() Clock {
	start := time.Now()
	wall := start.Round(0) // without the monotonic reading
	return func() time.Time {
		now := time.Now()
		steady := wall.Add(now.Sub(start))
		if now = now.Round(0); now.After(steady) {
			return now
		}
		return steady
	}
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
