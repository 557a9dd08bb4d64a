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
		"ten years ahead":      {87600 * time.Hour, 0, 87600 * time.Hour},
		"ahead, and undone":    {0, 2 * time.Minute, 2 * time.Minute},
		"ahead, and too early": {-time.Minute, 2 * time.Minute, 2 * time.Minute},
	} {
		if got := steady(begin, begin.Add(c.elapsed+c.step), c.elapsed); !got.Equal(begin.Add(c.want)) {
			t.Errorf("%s: %v, want %v after the begin", name, got.Sub(begin), c.want)
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
