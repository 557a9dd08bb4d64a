package apikey

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestClockDoesNotFollowTheWallClockBack(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ step, elapsed, want time.Duration }{
		"undisturbed":          {0, time.Minute, time.Minute},
		"an hour back":         {-time.Hour, time.Minute, time.Minute},
		"a year back":          {-365 * 24 * time.Hour, time.Minute, time.Minute},
		"slewed":               {-time.Millisecond, time.Minute, time.Minute},
		"an hour ahead":        {time.Hour, time.Minute, time.Hour + time.Minute},
		"ten years ahead":      {87600 * time.Hour, time.Minute, 87600*time.Hour + time.Minute},
		"ahead, and undone":    {0, 2 * time.Minute, 2 * time.Minute},
		"ahead, and too early": {-time.Minute, 2 * time.Minute, 2 * time.Minute},
	} {
		clock := &steadyClock{begin: begin}
		if got := clock.at(c.elapsed, stepped(c.elapsed, c.step)); !got.Equal(begin.Add(c.want)) {
			t.Errorf("%s: %v, want %v after the begin", name, got.Sub(begin), c.want)
		}
	}
}

// stepped is a reading of a wall clock that somebody has moved.
func stepped(elapsed, step time.Duration) func() (_, _ time.Duration) {
	return func() (_, _ time.Duration) { return elapsed, elapsed + step }
}

func TestClockFollowsTheWallClockWithinTheInterval(t *testing.T) {
	clock := &steadyClock{begin: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	for i, c := range []struct{ elapsed, step, want time.Duration }{
		{time.Second, 0, 0},
		{time.Second + lookInterval - 1, time.Hour, 0}, // not looked at yet
		{time.Second + lookInterval, time.Hour, time.Hour},
		{time.Second + 2*lookInterval - 1, 0, time.Hour},
		{time.Second + 2*lookInterval, 0, 0},
		{time.Second + 3*lookInterval, -time.Hour, 0},
	} {
		if got := clock.at(c.elapsed, stepped(c.elapsed, c.step)).Sub(clock.begin); got != c.elapsed+c.want {
			t.Errorf("%d: %v after the begin, want %v", i, got, c.elapsed+c.want)
		}
	}
}

func TestClockTellsTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := NewClock()
		for range 3 {
			if got := now(); !got.Equal(time.Now()) || got.Round(0) != got {
				t.Errorf("it is %v, want %v without a monotonic reading", got, time.Now())
			}
			time.Sleep(time.Hour)
		}
	})
}
