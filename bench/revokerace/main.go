// Command revokerace revokes keys while 64 readers use them on connections that
// stay open, and counts the requests that began after the revocation was answered
// and were accepted all the same. There must be none:
//
//	go run ./bench/revokerace -rounds 1000
//
// In every other round the keys are used for the first time while they are being
// revoked, so that filling them into the index races with that. The index is as
// small as it can be, and crowded with other keys half of the time.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

func main() {
	rounds := flag.Int("rounds", 100, "in each of them 4 or 64 keys are revoked, and 1,024 requests count")
	caddy := flag.String("caddy", "", "the `binary` to ask (default: it is built)")
	dir := flag.String("dir", "", "where to make a `folder` for the store (default: the one for temporary files)")
	asJSON := flag.Bool("json", false, "print the figure as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	f, err := run(ctx, *caddy, *dir, *rounds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "revokerace:", err)
	}
	if *asJSON {
		json.NewEncoder(os.Stdout).Encode(f)
	} else {
		fmt.Println(f)
	}
	if err != nil || f.broken() {
		os.Exit(1)
	}
}

// figure is what the rounds came to.
type figure struct {
	Rounds, Keys int
	// Requests began after the revocation of their key was answered; Accepted
	// counts those of them that were accepted.
	Requests, Accepted int
	Wrong              int // answers that were neither 200 nor 401
	// AcceptedBefore counts requests that began before, and Misses the lookups
	// that the index had no answer for: without them nothing was raced.
	AcceptedBefore, Misses int
}

func (f figure) broken() bool {
	return f.Accepted+f.Wrong > 0 || f.Requests == 0 || f.AcceptedBefore == 0 || f.Misses == 0
}

// String returns the figure as a sentence.
func (f figure) String() string {
	return fmt.Sprintf("revoke-race: %d keys revoked, %d requests began after the answer: %d accepted, %d wrong answers (%d accepted before it, %d lookups missed the index)",
		f.Keys, f.Requests, f.Accepted, f.Wrong, f.AcceptedBefore, f.Misses)
}

func run(ctx context.Context, caddy, dir string, rounds int) (f figure, err error) {
	if dir, err = os.MkdirTemp(dir, "revokerace-"); err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	if caddy == "" {
		if caddy, err = child.Build(ctx, "cmd/caddy", dir); err != nil {
			return f, err
		}
	}
	r, err := open(ctx, caddy, dir)
	if err != nil {
		return f, err
	}
	defer r.close()
	return r.run(ctx, rounds)
}
