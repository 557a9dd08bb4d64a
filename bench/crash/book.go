package main

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
)

type state uint8

const (
	live   state = iota // its creation was answered, or it was accepted since
	unsure              // a revocation was sent and not answered
	revoked
)

// entry is a key as it was acknowledged. While writers work, it belongs to one of
// them; afterwards to the supervisor.
type entry struct {
	id, token string
	state     state
}

// book knows every key whose creation was acknowledged. Acknowledgements are
// synced to a log, those that wait together at once.
type book struct {
	log   *os.File
	queue chan note
	ended chan struct{}

	mu               sync.Mutex
	keys             []*entry
	checked          int // keys up to here were in a sample before
	creates, revokes int
}

// note is a line for the log; done gets the outcome.
type note struct {
	line string
	done chan error
}

func openBook(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	b := &book{log: f, queue: make(chan note, writers), ended: make(chan struct{})}
	go b.write()
	return b, nil
}

func (b *book) close() error {
	close(b.queue)
	<-b.ended
	return b.log.Close()
}

func (b *book) write() {
	defer close(b.ended)
	out := bufio.NewWriter(b.log)
	for first := range b.queue {
		together := []note{first}
		for len(b.queue) > 0 {
			together = append(together, <-b.queue)
		}
		for _, n := range together {
			out.WriteString(n.line + "\n")
		}
		err := errors.Join(out.Flush(), b.log.Sync())
		for _, n := range together {
			n.done <- err
		}
	}
}

func (b *book) note(line string) error {
	n := note{line, make(chan error, 1)}
	b.queue <- n
	return <-n.done
}

func (b *book) created(k *entry) error {
	b.mu.Lock()
	b.keys = append(b.keys, k)
	b.creates++
	b.mu.Unlock()
	return b.note("created " + k.id)
}

func (b *book) revoked(k *entry) error {
	k.state = revoked
	b.mu.Lock()
	b.revokes++
	b.mu.Unlock()
	return b.note("revoked " + k.id)
}

// sample returns the keys that are new since the last sample, and some others.
func (b *book) sample(random *rand.Rand, others int) []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	picked := append([]*entry(nil), b.keys[b.checked:]...)
	for range min(others, b.checked) {
		picked = append(picked, b.keys[random.IntN(b.checked)])
	}
	b.checked = len(b.keys)
	return picked
}

// all returns every key.
func (b *book) all() []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys
}
