// Command measure compares the gateway with stock Caddy and with others, in one
// run and on one machine, and writes down what it saw:
//
//	go run ./bench/measure -rounds 13 -seconds 2 -keys 10000,1000000,10000000 -docs docs
//
// It needs Linux, two cores, and from Debian wrk and nginx; without haproxy and
// nghttp2-client their scenarios are left out. The README of the folder above has
// the shorter ways to call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// parts are what can be measured, in that order.
var parts = []string{"duel", "solo", "share", "issue", "open", "usage", "go", "index", "crash", "race"}

type options struct {
	rounds, seconds, cycles, races int
	keys                           []int
	parts                          []string
	only                           *regexp.Regexp
	dir, docs, from                string
	gatewayCore, loadCore          string
	keep                           bool
}

func main() {
	o, err := parseFlags()
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = o.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

func parseFlags() (o options, err error) {
	flag.IntVar(&o.rounds, "rounds", 13, "how often everything is measured")
	flag.IntVar(&o.seconds, "seconds", 2, "how long each load lasts")
	keys := flag.String("keys", "10000,1000000,10000000", "the `sizes` of the stores")
	flag.IntVar(&o.cycles, "cycles", 300, "how often the part crash kills the gateway")
	flag.IntVar(&o.races, "races", 1000, "how many keys the part race revokes")
	names := flag.String("parts", strings.Join(parts, ","), "what to measure")
	only := flag.String("only", "", "a `pattern` of the scenarios of duels to run (default: all)")
	flag.StringVar(&o.dir, "dir", "bin/bench", "a `folder` for stores and logs, on the disk to measure")
	flag.StringVar(&o.docs, "docs", "", "the `folder` to write benchmarks.md and its plots into (default: print it)")
	flag.StringVar(&o.from, "from", "", "a `file` of results to report on, instead of measuring")
	flag.StringVar(&o.gatewayCore, "gateway-core", "0", "the `core` of gateways")
	flag.StringVar(&o.loadCore, "load-core", "1", "the `core` of the load, and of the service behind the gateways")
	flag.BoolVar(&o.keep, "keep", false, "keep the stores, and use those that are there")
	flag.Parse()
	for _, text := range strings.Split(*keys, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return o, fmt.Errorf("-keys: %q is not a number of keys", text)
		}
		o.keys = append(o.keys, n)
	}
	slices.Sort(o.keys)
	o.parts = strings.Split(*names, ",")
	for _, name := range o.parts {
		if !slices.Contains(parts, name) {
			return o, fmt.Errorf("-parts: %q is none; they are %s", name, strings.Join(parts, ", "))
		}
	}
	if o.rounds < 1 || o.seconds < 1 {
		return o, errors.New("-rounds and -seconds must be at least 1")
	}
	o.only, err = regexp.Compile(*only)
	return o, err
}

func (o options) run(ctx context.Context) error {
	if o.from != "" {
		r, err := readResults(o.from)
		if err != nil {
			return err
		}
		return o.report(r)
	}
	start := time.Now()
	l := &lab{
		dir: o.dir, gatewayCore: o.gatewayCore, loadCore: o.loadCore, seconds: o.seconds, rounds: o.rounds,
		progress: func(format string, args ...any) {
			fmt.Fprintf(os.Stderr, "%6.0fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
		},
	}
	defer l.close()
	if err := l.open(ctx); err != nil {
		return err
	}
	if err := l.fill(ctx, o.keys, o.keep); err != nil {
		return err
	}
	r := &results{
		Command: "go run ./bench/measure " + strings.Join(os.Args[1:], " "), Machine: l.machine(ctx), Started: start.UTC(),
		Seconds: o.seconds, Rounds: o.rounds, Main: l.main().String(), Largest: l.largest().String(),
	}
	err := o.measure(ctx, l, r)
	if !o.keep {
		l.close()
		err = errors.Join(err, l.removeStores())
	}
	if err != nil {
		return err
	}
	return o.report(r)
}

// measure does the parts that were asked for. One that fails is noted, and the
// others go on.
func (o options) measure(ctx context.Context, l *lab, r *results) error {
	noted := make(map[string]bool)
	missing := func(name string, err error) {
		if noted[name] {
			return // in an earlier round
		}
		noted[name] = true
		l.progress("not measured: %s: %v", name, err)
		cause := strings.Join(strings.Fields(err.Error()), " ") // on one line, however much a program printed
		r.Missing = append(r.Missing, name+": "+cause[:min(len(cause), 300)])
	}
	wants := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(o.parts, name) })
	}
	part := func(name string, do func() error) {
		if !wants(name) || ctx.Err() != nil {
			return
		}
		if err := do(); err != nil {
			missing(name, err)
		}
	}
	sizes, err := l.storeSizes()
	if err != nil {
		return err
	}
	r.Stores = sizes
	if wants("duel", "solo", "share") {
		if err := o.load(ctx, l, r, wants, missing); err != nil {
			return err
		}
	}
	part("issue", func() error { r.Issues = l.issues(ctx, missing); return nil })
	part("open", func() (err error) { r.Opens, err = l.opens(ctx); return err })
	part("usage", func() (err error) { r.Usage, err = l.usage(ctx); return err })
	part("go", func() (err error) { r.Go, err = l.goBenches(ctx, "apikey", "1"); return err })
	part("index", func() (err error) { r.Index, err = l.goBenches(ctx, "bench/index", "1,2"); return err })
	part("crash", func() error {
		r.Crash = new(crashTest)
		return l.fault(ctx, "bench/crash", r.Crash, "-cycles", o.cycles)
	})
	part("race", func() error {
		r.Race = new(raceTest)
		return l.fault(ctx, "bench/revokerace", r.Race, "-rounds", o.races)
	})
	return ctx.Err()
}

// load does the parts that need the gateways, all of which run meanwhile.
func (o options) load(ctx context.Context, l *lab, r *results, wants func(...string) bool, missing func(string, error)) error {
	defer l.closeBut(1) // the upstream
	l.progress("starting the gateways")
	stock, err := l.stockTarget(ctx, "stock")
	if err != nil {
		return err
	}
	scenarios := l.scenarios(ctx, o.only, missing)
	if wants("duel") {
		r.Duels = l.duels(ctx, stock, scenarios, missing)
	}
	if wants("solo") {
		r.Solos = l.solos(ctx, stock, scenarios, missing)
	}
	if wants("share") {
		r.Shares = l.shares(ctx, scenarios, missing)
	}
	r.Memories = memories(stock, scenarios, missing)
	return ctx.Err()
}

func (o options) report(r *results) error {
	if o.docs == "" {
		fmt.Print(r.markdown())
		return nil
	}
	return r.publish(filepath.Clean(o.docs))
}
