package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// share is where the processor time of a gateway goes, in percent of the samples
// of a profile under load.
type share struct {
	Name    string
	Samples int
	// Handler is what our code, and what it calls, takes of the requests.
	Handler float64
	// Check is the part of it that finds out whose key it is.
	Check float64
	// Background is what it takes besides: writing usage, counting keys.
	Background float64
	// Collector is garbage collection outside of any request.
	Collector float64
}

// shares profiles gateways of ours under load, one after the other.
func (l *lab) shares(ctx context.Context, scenarios []*scenario, missing func(string, error)) (all []share) {
	main, largest := l.main().String(), l.largest().String()
	profiled := []string{hotName(1, main), hotName(10_000, main), freshName(main), minuteName(missName(largest))}
	for _, s := range scenarios {
		if !slices.Contains(profiled, s.name) {
			continue
		}
		l.progress("profile: %s", s.name)
		found, err := l.share(ctx, s)
		if err != nil {
			missing("profile: "+s.name, err)
			continue
		}
		found.Name = s.name
		all = append(all, found)
	}
	return all
}

func (l *lab) share(ctx context.Context, s *scenario) (share, error) {
	loading, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() {
		for loading.Err() == nil {
			shot, err := l.get(loading, s.to, s.with, soloConnections, s.first+s.at)
			if err != nil && loading.Err() == nil {
				loaded <- err
				return
			}
			s.used(shot.Requests, l.main().sample)
		}
		loaded <- nil
	}()
	time.Sleep(time.Second / 2) // until wrk has read its file
	path := filepath.Join(l.dir, "cpu.pprof")
	err := download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.to.admin, 10*l.seconds), path)
	stop()
	if err := errors.Join(err, <-loaded); err != nil {
		return share{}, err
	}
	traces, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", path).Output()
	if err != nil {
		return share{}, fmt.Errorf("reading the profile: %w", err)
	}
	return parseTraces(traces)
}

func download(ctx context.Context, url, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", request.URL.Path, answer.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, answer.Body)
	return errors.Join(err, f.Close())
}

// parseTraces reads what "pprof -traces" prints: for each stack that was seen the
// time, and the functions from the innermost on.
func parseTraces(text []byte) (share, error) {
	var all, handler, check, background, collector time.Duration
	var stack []string
	var took time.Duration
	close := func() {
		all += took
		switch kindOf(stack) {
		case inHandler:
			handler += took
			if slices.ContainsFunc(stack, func(f string) bool { return strings.Contains(f, "caddymodule.(*checker).check") }) {
				check += took
			}
		case inBackground:
			background += took
		case inCollector:
			collector += took
		}
		stack, took = nil, 0
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	begun := false
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case strings.HasPrefix(line, "-----------+"):
			close()
			begun = true
		case !begun || line == "":
		case took == 0:
			number, function, _ := strings.Cut(line, " ")
			var err error
			if took, err = time.ParseDuration(number); err != nil {
				return share{}, fmt.Errorf("reading the profile: %w", err)
			}
			stack = append(stack, strings.TrimSpace(function))
		default:
			stack = append(stack, line)
		}
	}
	close()
	if all == 0 {
		return share{}, errors.New("the profile has no samples")
	}
	percent := func(part time.Duration) float64 { return 100 * float64(part) / float64(all) }
	return share{
		Samples: int(all / (10 * time.Millisecond)), // the period at which Go takes them
		Handler: percent(handler), Check: percent(check), Background: percent(background), Collector: percent(collector),
	}, lines.Err()
}

type stackKind int

const (
	elsewhere stackKind = iota
	inHandler
	inBackground
	inCollector
)

// kindOf says whose a stack is, by the innermost of its functions that is a
// landmark. Our handlers call the next one through Caddy's middleware, so that
// the proxy behind them does not count as theirs.
func kindOf(stack []string) stackKind {
	ours := false
	for _, function := range stack {
		switch {
		case strings.Contains(function, "/caddy-apikeys/"):
			ours = true
		case !ours && (strings.Contains(function, "caddyhttp.HandlerFunc.ServeHTTP") || strings.Contains(function, "wrapMiddleware") ||
			strings.Contains(function, "reverseproxy.")):
			return elsewhere
		case strings.HasPrefix(function, "net/http.(*conn).serve"), strings.HasPrefix(function, "net/http.(*http2serverConn)"):
			if ours {
				return inHandler
			}
			return elsewhere
		case strings.HasPrefix(function, "runtime.gcBgMarkWorker"), strings.HasPrefix(function, "runtime.bgsweep"),
			strings.HasPrefix(function, "runtime.bgscavenge"):
			return inCollector
		}
	}
	if ours {
		return inBackground
	}
	return elsewhere
}
