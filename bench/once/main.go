// Command once sends one GET with each token of a file, over connections that
// stay open, and prints as JSON how many there were and how long it took. It
// fails unless every one is answered 200.
//
//	once -rate 16667 127.0.0.1:8080 tokens.txt
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/wire"
)

func main() {
	rate := flag.Int("rate", 10_000, "requests a second")
	connections := flag.Int("c", 32, "`connections`")
	most := flag.Int("n", math.MaxInt, "how many `tokens` of the file are used")
	flag.Parse()
	if flag.NArg() != 2 || *rate < 1 {
		fmt.Fprintln(os.Stderr, "usage: once [-rate N] [-c N] [-n N] ADDRESS FILE")
		os.Exit(2)
	}
	sent, took, err := run(flag.Arg(0), flag.Arg(1), *most, *rate, *connections)
	if err != nil {
		fmt.Fprintln(os.Stderr, "once:", err)
		os.Exit(1)
	}
	fmt.Printf("{\"Keys\":%d,\"Seconds\":%.3f}\n", sent, took.Seconds())
}

func run(address, file string, most, rate, connections int) (sent int, took time.Duration, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	tokens := make(chan string, connections)
	var sending sync.WaitGroup
	for range connections {
		sending.Go(func() {
			if err := send(address, tokens); err != nil {
				stop(err)
			}
		})
	}
	start := time.Now()
	lines := bufio.NewScanner(f)
	for sent < most && ctx.Err() == nil && lines.Scan() {
		// Tokens that are late come at once, so that the rate is kept.
		due := start.Add(time.Duration(sent) * time.Second / time.Duration(rate))
		if early := time.Until(due); early > time.Millisecond {
			time.Sleep(early)
		}
		select {
		case tokens <- lines.Text():
			sent++
		case <-ctx.Done():
		}
	}
	close(tokens)
	sending.Wait()
	if err := errors.Join(context.Cause(ctx), lines.Err()); err != nil {
		return sent, 0, err
	}
	return sent, time.Since(start), nil
}

func send(address string, tokens <-chan string) error {
	conn, err := wire.Dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	for token := range tokens {
		status, _, err := conn.Do(http.MethodGet, "/", token, "")
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("a request was answered %d", status)
		}
	}
	return nil
}
