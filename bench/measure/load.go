package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

// credentials are lines of a file that requests carry in their Authorization
// header.
type credentials struct {
	file   string
	scheme string
	// take is how many lines are used, from the first on.
	take int
	// inOrder uses one line after the other, instead of any. A further shot
	// goes on where the one before may have ended.
	inOrder bool
	// refused says that 401 is the right answer.
	refused bool
	// hot says that each credential has been used before it counts.
	hot bool
	// writes says that each use is one that a gateway of ours has to write: it is
	// charged for the second after the load too, in which it does the rest.
	writes bool
	// seconds is how long the load lasts, if not as long as the others.
	seconds int
}

// shot is what came of one load.
type shot struct {
	Requests   float64 // that were answered
	Seconds    float64
	P50, P99   float64 // milliseconds; 0: not known
	CPU        float64 // microseconds of the gateway and its helpers, for each request
	mismatched float64 // answers that were not the expected ones
	broken     float64 // requests without an answer
}

// PerSecond returns the rate of answers.
func (s shot) PerSecond() float64 { return s.Requests / s.Seconds }

//go:embed keys.lua
var keysScript []byte

//go:embed post.lua
var postScript []byte

// writeScripts puts the wrk scripts where wrk finds them.
func (l *lab) writeScripts() error {
	return errors.Join(
		os.WriteFile(filepath.Join(l.dir, "keys.lua"), keysScript, 0o600),
		os.WriteFile(filepath.Join(l.dir, "post.lua"), postScript, 0o600),
	)
}

// get loads a gateway with GET requests over connections that stay open. skip
// is where to begin in the file of credentials.
func (l *lab) get(ctx context.Context, t *target, with credentials, connections, skip int) (shot, error) {
	order := "random"
	if with.inOrder {
		order = "in-order"
	}
	return t.timed(with, func() (shot, error) {
		return l.wrk(ctx, l.loadCore, "keys.lua", connections, cmp.Or(with.seconds, l.seconds), "http://"+t.address+"/", with.file, with.scheme,
			strconv.Itoa(skip), strconv.Itoa(with.take), order)
	})
}

// wrk runs wrk with a script for some seconds.
func (l *lab) wrk(ctx context.Context, cores, script string, connections, seconds int, url string, arguments ...string) (shot, error) {
	args := []string{"wrk", "-t1", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", seconds), "--timeout", "10s",
		"--latency", "-s", filepath.Join(l.dir, script), url, "--"}
	out, err := child.Command{Args: append(args, arguments...), Cores: cores}.Exec(ctx).CombinedOutput()
	if err != nil {
		return shot{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(out)
}

// parseWrk reads the line that the scripts print at their end.
func parseWrk(out []byte) (shot, error) {
	at := bytes.LastIndex(out, []byte(`{"requests":`))
	if at < 0 {
		return shot{}, fmt.Errorf("wrk printed no result: %s", out)
	}
	var result struct{ Requests, US, P50, P99, Refused, Broken float64 }
	if err := json.NewDecoder(bytes.NewReader(out[at:])).Decode(&result); err != nil {
		return shot{}, fmt.Errorf("reading the result of wrk: %w", err)
	}
	if result.Requests == 0 || result.US == 0 {
		return shot{}, errors.New("not one request was answered")
	}
	return shot{
		Requests: result.Requests, Seconds: result.US / 1e6, P50: result.P50 / 1e3, P99: result.P99 / 1e3,
		mismatched: result.Refused, broken: result.Broken,
	}, nil
}

// getSecure loads a gateway over TLS with HTTP/2. All requests carry the first
// credential of the file: h2load sends one list of headers.
func (l *lab) getSecure(ctx context.Context, t *target, with credentials, connections int) (shot, error) {
	const streams = 4 // on each connection
	first, err := firstLine(with.file)
	if err != nil {
		return shot{}, err
	}
	return t.timed(with, func() (shot, error) {
		out, err := child.Command{Cores: l.loadCore, Args: []string{
			"h2load", "-t1", "-c", strconv.Itoa(connections / streams), "-m", strconv.Itoa(streams), "-D", strconv.Itoa(l.seconds),
			"-H", "user-agent: bench (h2load)", "-H", "authorization: " + with.scheme + " " + first, "https://" + t.secure + "/",
		}}.Exec(ctx).CombinedOutput()
		if err != nil {
			return shot{}, fmt.Errorf("h2load: %w: %s", err, out)
		}
		s, err := parseH2load(out)
		s.Seconds = float64(l.seconds)
		return s, err
	})
}

var (
	h2Protocol = regexp.MustCompile(`Application protocol: h2\b`)
	h2Requests = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed`)
	h2Statuses = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
)

// parseH2load reads what h2load prints. It knows no percentiles.
func parseH2load(out []byte) (shot, error) {
	requests, statuses := h2Requests.FindSubmatch(out), h2Statuses.FindSubmatch(out)
	if requests == nil || statuses == nil || !h2Protocol.Match(out) {
		return shot{}, fmt.Errorf("h2load printed no result of HTTP/2: %s", out)
	}
	number := func(text []byte) float64 {
		n, _ := strconv.ParseFloat(string(text), 64) // digits, says the expression
		return n
	}
	s := shot{Requests: number(requests[1]), mismatched: number(statuses[3]) + number(statuses[4])}
	if s.Requests == 0 {
		return shot{}, errors.New("not one request was answered")
	}
	return s, nil
}

// timed fires a shot, charges the processor time that it cost, and makes sure
// that the answers were the right ones.
func (t *target) timed(with credentials, fire func() (shot, error)) (shot, error) {
	before, err := t.cpu()
	if err != nil {
		return shot{}, err
	}
	s, err := fire()
	if err != nil {
		return shot{}, err
	}
	if with.writes && t.checks {
		time.Sleep(1500 * time.Millisecond) // more than the interval of the flushes
	}
	after, err := t.cpu()
	if err != nil {
		return shot{}, err
	}
	s.CPU = float64((after - before).Microseconds()) / s.Requests
	if with.refused && t.checks {
		s.mismatched = s.Requests - s.mismatched
	}
	if s.mismatched > 0 || s.broken > 0 {
		return shot{}, fmt.Errorf("%s: of %.0f answers %.0f were wrong, %.0f did not come", t.name, s.Requests, s.mismatched, s.broken)
	}
	return s, nil
}
