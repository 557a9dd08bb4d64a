package main

import (
	"encoding/json"
	"os"
	"time"
)

// results is all that a run has measured, as it is kept beside the report:
// series as they came, from which the report takes medians.
type results struct {
	Machine machine
	Command string
	Started time.Time
	Seconds int // of each shot
	Rounds  int
	// Main and Largest name the stores of the figures.
	Main, Largest string

	Stores   []storeSize  `json:",omitempty"`
	Duels    []*duel      `json:",omitempty"`
	Solos    []*solo      `json:",omitempty"`
	Memories []memory     `json:",omitempty"`
	Shares   []share      `json:",omitempty"`
	Issues   []issueRates `json:",omitempty"`
	Opens    *openTimes   `json:",omitempty"`
	Usage    *usageTest   `json:",omitempty"`
	Go       []goBench    `json:",omitempty"`
	Index    []goBench    `json:",omitempty"`
	Crash    *crashTest   `json:",omitempty"`
	Race     *raceTest    `json:",omitempty"`

	// Missing says what could not be measured, and why.
	Missing []string `json:",omitempty"`
}

// storeSize is what filling a store came to.
type storeSize struct {
	Name          string
	Keys          int
	Bytes         int64
	KeysPerSecond float64 `json:",omitempty"` // 0: it was there from an earlier run
}

func readResults(path string) (*results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(results)
	return r, json.Unmarshal(text, r)
}

func (r *results) write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
