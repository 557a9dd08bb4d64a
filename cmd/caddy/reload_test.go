package main_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func TestReloadsUnderLoadFailNoRequestAndLeakNothing(t *testing.T) {
	// Caddy keeps connections to an upstream for two minutes after the
	// configuration that made them has gone.
	site := strings.Replace(plainSite, "{$UPSTREAM}", "{$UPSTREAM} {\n\t\ttransport http {\n\t\t\tkeepalive 1s\n\t\t}\n\t}", 1)
	g := startGateway(t, site)
	key := g.issue(map[string]string{"scope": "read-write"})
	g.requireStatus(200, "GET", "/", key["key"])

	// As it is when a first reload and the work after it are over.
	if err := g.reload(site); err != nil {
		t.Fatal(err)
	}
	goroutines, files := g.atRest(0, 0)

	var requests, lost atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for client := range 4 {
		clients.Go(func() {
			for i := client; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := g.oneRequest(i, key["key"])
				if connectionLost(err) {
					lost.Add(1)
					err = g.oneRequest(i, key["key"])
				}
				if err != nil {
					t.Error(err)
					return
				}
				requests.Add(1)
			}
		})
	}
	const reloads = 50
	for i := range reloads {
		// Each reload meets requests that came after the last one.
		before := requests.Load()
		waitFor(t, "requests between reloads", func() bool { return requests.Load() > before || t.Failed() })
		if err := g.reload(site); err != nil {
			t.Errorf("reload %d: %v", i, err)
		}
	}
	if _, stderr, code := g.run(g.command("reload", "--force", "--config", g.file)); code != 0 {
		t.Errorf("caddy reload --force: exit code %d, %s", code, stderr)
	}
	close(stop)
	clients.Wait()

	// Some slack for what Caddy does in the background, but far less than one for
	// each reload.
	goroutinesAfter, filesAfter := g.atRest(goroutines+3, files+3)
	t.Logf("%d requests over %d reloads, %d connections lost; goroutines %d before and %d after, open files %d and %d",
		requests.Load(), reloads+1, lost.Load(), goroutines, goroutinesAfter, files, filesAfter)
}

// oneRequest reads or writes through the gateway. A connection that the server
// closed while it was idle is not a failure; net/http tries again by itself where
// it may, and X-Idempotency-Key tells it that it may here.
func (g *gateway) oneRequest(i int, token string) error {
	method := []string{http.MethodGet, http.MethodPost}[i%2]
	req, err := http.NewRequest(method, g.url+"/load", strings.NewReader("body"))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Idempotency-Key", "none")
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), method+" /load by key_") {
		return fmt.Errorf("%s: HTTP %d: %s", method, resp.StatusCode, body)
	}
	return nil
}

// connectionLost reports whether a connection ended before an answer. A new one
// can, because Caddy has a listening socket for each configuration, and with the
// old one Linux drops those that it did not accept yet. A Caddy without this
// plugin does so, too.
func connectionLost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

var total = regexp.MustCompile(`^goroutine profile: total (\d+)`)

// atRest waits until the process has no more goroutines and open files than given,
// where these are not zero, and the numbers do not change any more.
func (g *gateway) atRest(maxGoroutines, maxFiles int) (goroutines, files int) {
	g.t.Helper()
	g.client.CloseIdleConnections()
	same := 0
	waitFor(g.t, fmt.Sprintf("at most %d goroutines and %d open files", maxGoroutines, maxFiles), func() bool {
		lastGoroutines, lastFiles := goroutines, files
		profile := g.get("/debug/pprof/goroutine?debug=1")
		goroutines, _ = strconv.Atoi(total.FindStringSubmatch(profile)[1])
		files = g.openFiles()
		if goroutines != lastGoroutines || files != lastFiles {
			same = 0
		}
		same++
		return same >= 10 && (maxGoroutines == 0 || goroutines <= maxGoroutines && files <= maxFiles)
	})
	return goroutines, files
}

// openFiles returns the number of open files, or 0 on systems that do not tell.
func (g *gateway) openFiles() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.process.Process.Pid))
	return len(entries)
}
