// Command crash kills a gateway in the middle of its work, again and again, and
// compares what it had acknowledged with what it knows when it is back:
//
//	go run ./bench/crash -cycles 300
//
// 64 writers create keys and revoke them over HTTP. Each answer is noted in a log
// that is synced to another file. After 5 to 500 ms the gateway is killed
// (SIGKILL) and started again: every key whose creation was answered must be
// accepted, and every key whose revocation was answered must be refused.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

func main() {
	cycles := flag.Int("cycles", 20, "how often the gateway is `killed`")
	caddy := flag.String("caddy", "", "the `binary` to kill (default: it is built)")
	dir := flag.String("dir", "", "where to make a `folder` for the store (default: the one for temporary files)")
	seed := flag.Uint64("seed", rand.Uint64(), "of the moments at which it is killed")
	asJSON := flag.Bool("json", false, "print the figure as JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	f, err := run(ctx, *caddy, *dir, *cycles, *seed)
	if err != nil {
		fmt.Fprintf(os.Stderr, "crash (seed %d): %v\n", *seed, err)
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

// figure is what the cycles came to.
type figure struct {
	Cycles, Creates, Revokes int
	// Lost counts keys whose creation was answered and that are not accepted;
	// Revived those whose revocation was answered, or that were refused once,
	// and that are accepted.
	Lost, Revived int
	FailedStarts  int
	Wrong         int // answers that were neither of the two
}

func (f figure) broken() bool { return f.Lost+f.Revived+f.FailedStarts+f.Wrong > 0 || f.Creates == 0 }

// String returns the figure as a sentence.
func (f figure) String() string {
	return fmt.Sprintf("crash: %d cycles, %d creates and %d revokes acknowledged: %d lost, %d revived, %d failed starts, %d wrong answers",
		f.Cycles, f.Creates, f.Revokes, f.Lost, f.Revived, f.FailedStarts, f.Wrong)
}

func run(ctx context.Context, caddy, dir string, cycles int, seed uint64) (f figure, err error) {
	dir, err = os.MkdirTemp(dir, "crash-")
	if err != nil {
		return f, err
	}
	if caddy == "" {
		if caddy, err = child.Build(ctx, "cmd/caddy", dir); err != nil {
			return f, err
		}
	}
	f, err = (&supervisor{caddy: caddy, dir: dir, random: rand.New(rand.NewPCG(seed, 0))}).run(ctx, cycles)
	if err != nil || f.broken() {
		fmt.Fprintf(os.Stderr, "crash: the store and the logs are left in %s\n", dir)
		return f, err
	}
	return f, os.RemoveAll(dir)
}
