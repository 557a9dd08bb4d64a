package proc

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMemoryIsReadFromSmapsRollup(t *testing.T) {
	const text = `00400000-7ffd4d5f2000 ---p 00000000 00:00 0                            [rollup]
Rss:               54320 kB
Pss:               50000 kB
Anonymous:         20480 kB
SwapPss:               0 kB
`
	got, err := parseMemory(strings.NewReader(text))
	if want := (Memory{Resident: 54320 << 10, Anonymous: 20 << 20}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestMemoryWithoutItsLinesIsAnError(t *testing.T) {
	if got, err := parseMemory(strings.NewReader("Rss: 1 kB\n")); err == nil {
		t.Errorf("got %+v", got)
	}
}

func TestProcessorTimeGrowsWithWork(t *testing.T) {
	before, err := CPU(os.Getpid())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Log("nothing to see on this system")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := before + 20*time.Millisecond; ; {
		spent, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if spent >= deadline {
			break
		}
	}
	if _, err := CPU(1 << 27); err == nil {
		t.Error("a process that does not exist has used time")
	}
}
