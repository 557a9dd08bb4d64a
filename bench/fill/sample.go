package main

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"os"
)

// sample keeps some of the tokens that it is offered, each with the same chance.
type sample struct {
	size, offered int
	tokens        []string
}

func newSample(size int) *sample { return &sample{size: size} }

func (s *sample) offer(token string) {
	s.offered++
	if len(s.tokens) < s.size {
		s.tokens = append(s.tokens, token)
	} else if at := rand.IntN(s.offered); at < s.size {
		s.tokens[at] = token
	}
}

// write puts the tokens into a file for its owner alone, in any order.
func (s *sample) write(path string) (err error) {
	rand.Shuffle(len(s.tokens), func(i, j int) { s.tokens[i], s.tokens[j] = s.tokens[j], s.tokens[i] })
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := bufio.NewWriter(f)
	for _, token := range s.tokens {
		out.WriteString(token + "\n")
	}
	return out.Flush()
}
