package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// usageTest is a load in which each key is used once, at the rate of a million
// keys a minute, and what the store has of it when the gateway has stopped.
type usageTest struct {
	Keys    int
	Seconds float64 // that the load took
	Counted uint64  // uses in the store
	Lost    int     // keys without their use, or with more than it
	// Flushes is how often usage was written, FlushMean how long that took on
	// average and FlushMost a bound that no flush passed; in seconds.
	Flushes              float64
	FlushMean, FlushMost float64
	// CPU is microseconds of the gateway for each request, which it answers
	// itself.
	CPU float64
}

// usesPerSecond is a million a minute.
const usesPerSecond = 16_667

func (l *lab) usage(ctx context.Context) (*usageTest, error) {
	s := l.main()
	l.progress("using each of %s keys once", s)
	path, err := l.copy(s, "usage")
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	// Without a proxy: one core cannot proxy as many requests.
	g, err := gateway.Start(ctx, gateway.Config{
		Name: "usage", Binary: l.ours, Dir: l.dir, Cores: l.gatewayCore, Global: keysOption(path, ""), Site: "api_keys\nrespond 200",
	})
	if err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			g.Kill()
		}
	}()
	before, err := g.CPU()
	if err != nil {
		return nil, err
	}
	out, err := child.Command{
		Args: []string{l.once, "-rate", strconv.Itoa(usesPerSecond), g.Address, s.tokens}, Cores: l.loadCore,
	}.Exec(ctx).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("using each key once: %w: %s", err, out)
	}
	after, err := g.CPU()
	if err != nil {
		return nil, err
	}
	r := new(usageTest)
	if err := json.Unmarshal(out, r); err != nil {
		return nil, err
	}
	r.CPU = float64((after - before).Microseconds()) / float64(r.Keys)
	if err := r.readFlushes(g.Admin); err != nil {
		return nil, err
	}
	stopped = true
	if err := g.Stop(); err != nil {
		return nil, err
	}
	return r, r.count(ctx, path, s.tokens)
}

// count compares the usage in the store with what was sent.
func (r *usageTest) count(ctx context.Context, path, tokens string) (err error) {
	store, err := boltstore.Open(path)
	if err != nil {
		return err
	}
	ring, err := apikey.Open(store, apikey.Settings{Capacity: 1}, apikey.Policy{}, nil)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	defer func() { err = errors.Join(err, ring.Close()) }()
	f, err := os.Open(tokens)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		id, ok := apikey.ParseID("key_" + lines.Text()[len(apikey.DefaultPrefix+"_"):][:apikey.IDLength-len("key_")])
		if !ok {
			return errors.New("a line of the file of tokens is none")
		}
		key, err := ring.Get(ctx, apikey.Operator(""), id)
		if err != nil {
			return err
		}
		r.Counted += key.Usage.Count
		if key.Usage.Count != 1 {
			r.Lost++
		}
	}
	return lines.Err()
}

// readFlushes reads the metrics of a gateway that flushed usage.
func (r *usageTest) readFlushes(admin string) error {
	answer, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	h, err := parseHistogram(bufio.NewScanner(answer.Body), "caddy_api_keys_usage_flush_duration_seconds")
	if err != nil {
		return err
	}
	r.Flushes = h.count
	if h.count > 0 {
		r.FlushMean, r.FlushMost = h.sum/h.count, h.most
	}
	return nil
}

// histogram is a Prometheus histogram without labels.
type histogram struct {
	count, sum float64
	most       float64 // the bound of the bucket that has them all; -1: there is none
}

var bucket = regexp.MustCompile(`\{le="([^"]+)"\} (\S+)$`)

func parseHistogram(lines *bufio.Scanner, name string) (h histogram, err error) {
	type bound struct{ le, count float64 }
	var bounds []bound
	number := func(text string) float64 {
		n, failed := strconv.ParseFloat(text, 64)
		err = errors.Join(err, failed)
		return n
	}
	found := false
	for lines.Scan() {
		line := lines.Text()
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		found = true
		if value, ok := strings.CutPrefix(rest, "_sum "); ok {
			h.sum = number(value)
		} else if value, ok := strings.CutPrefix(rest, "_count "); ok {
			h.count = number(value)
		} else if match := bucket.FindStringSubmatch(rest); match != nil && match[1] != "+Inf" {
			bounds = append(bounds, bound{number(match[1]), number(match[2])})
		}
	}
	if !found {
		return h, fmt.Errorf("the metric %s is missing", name)
	}
	h.most = -1
	for _, b := range bounds {
		if b.count == h.count {
			h.most = b.le
			break
		}
	}
	return h, errors.Join(err, lines.Err())
}
