package main

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatTheGatewaySaidOnceItHasToStandBy(t *testing.T) {
	const accepted, refused = http.StatusOK, http.StatusUnauthorized
	for _, c := range []struct {
		name   string
		before state
		status int
		after  state
		want   figure
	}{
		{"a created key is accepted", live, accepted, live, figure{}},
		{"a created key is gone", live, refused, live, figure{Lost: 1}},
		{"a revoked key is refused", revoked, refused, revoked, figure{}},
		{"a revoked key is back", revoked, accepted, revoked, figure{Revived: 1}},
		{"a revocation without an answer was in force", unsure, refused, revoked, figure{}},
		{"a revocation without an answer was not", unsure, accepted, live, figure{}},
		{"no answer about a key", live, http.StatusServiceUnavailable, live, figure{Wrong: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, k := &supervisor{book: new(book)}, &entry{state: c.before}
			s.judge(k, c.status)
			if got := s.sum(); got != c.want || k.state != c.after {
				t.Errorf("figure %+v, state %d; want %+v, %d", got, k.state, c.want, c.after)
			}
		})
	}
}

func TestEveryBrokenPromiseFailsTheRun(t *testing.T) {
	for name, f := range map[string]figure{
		"lost": {Creates: 1, Lost: 1}, "revived": {Creates: 1, Revived: 1}, "no start": {Creates: 1, FailedStarts: 1},
		"wrong": {Creates: 1, Wrong: 1}, "nothing was done": {},
	} {
		if !f.broken() {
			t.Errorf("%s does not fail it", name)
		}
	}
	if f := (figure{Cycles: 1, Creates: 1, Revokes: 1}); f.broken() {
		t.Error("a good run fails")
	}
}

func TestAcknowledgementsAreInTheLogWhenTheyCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	b, err := openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	k := &entry{id: "key_1"}
	for _, step := range []struct {
		note func(*entry) error
		log  string
	}{{b.created, "created key_1\n"}, {b.revoked, "created key_1\nrevoked key_1\n"}} {
		if err := step.note(k); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != step.log {
			t.Errorf("the log is %q, %v; want %q", text, err, step.log)
		}
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	if k.state != revoked || b.creates != 1 || b.revokes != 1 {
		t.Errorf("state %d, %d creates, %d revokes", k.state, b.creates, b.revokes)
	}
}

func TestASampleHasAllThatIsNew(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	b := &book{keys: []*entry{{id: "1"}, {id: "2"}}}
	if got := b.sample(random, 10); len(got) != 2 {
		t.Fatalf("the first sample has %d keys", len(got))
	}
	b.keys = append(b.keys, &entry{id: "3"})
	got := b.sample(random, 1)
	if len(got) != 2 || got[0].id != "3" || got[1].id == "3" {
		t.Errorf("the second sample has %d keys, the first of them %s", len(got), got[0].id)
	}
}
