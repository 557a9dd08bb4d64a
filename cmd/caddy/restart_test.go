package main_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
)

func TestKeysRevocationsAndUsageSurviveAStop(t *testing.T) {
	g := startGateway(t, plainSite)
	used, unused := g.issue(nil), g.issue(map[string]string{"scope": "read-write"})
	revoked := g.issue(nil)
	for range 3 {
		g.requireStatus(200, "GET", "/", used["key"])
		g.requireStatus(200, "GET", "/", revoked["key"])
	}
	g.run(g.command("api-keys", "revoke", revoked["id"]))
	before := make(map[string]map[string]string)
	for _, key := range []map[string]string{used, unused, revoked} {
		before[key["id"]] = g.look(key["id"])
	}
	if info, err := os.Stat(g.store()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the store: %v, %v, want mode 0600", info.Mode(), err)
	}
	g.requireNoSecretIn(g.home)

	g.stop()
	g.start()
	for id, key := range before {
		if after := g.look(id); !maps.Equal(after, key) {
			t.Errorf("before the stop %v\nafter it %v", key, after)
		}
	}
	if before[used["id"]]["lastUsedAt"] == "" || before[revoked["id"]]["revokedAt"] == "" {
		t.Errorf("there was nothing to lose: %v", before)
	}
	g.requireStatus(200, "GET", "/", used["key"])
	g.requireStatus(200, "GET", "/", unused["key"])
	g.requireStatus(401, "GET", "/", revoked["key"])
}

// What was answered holds, wherever in a write the process is killed.
func TestAnsweredCreatesAndRevocationsSurviveAKill(t *testing.T) {
	g := startGateway(t, plainSite)
	tokens, revoked := make(map[string]string), make(map[string]bool) // by id
	for round := range 4 {
		enough := 25 * (round + 1)
		var mu sync.Mutex
		var workers sync.WaitGroup
		for worker := range 4 {
			workers.Go(func() {
				for i := 0; ; i++ {
					id, token, err := createUntilKilled(g)
					if err != nil {
						return
					}
					mu.Lock()
					tokens[id] = token
					mu.Unlock()
					if (i+worker)%2 == 0 {
						continue
					}
					if status, _, err := g.ask(http.MethodDelete, "/api_keys/keys/"+id, nil, ""); err != nil || status != http.StatusOK {
						mu.Lock()
						delete(tokens, id) // nobody knows
						mu.Unlock()
						return
					}
					mu.Lock()
					revoked[id] = true
					mu.Unlock()
				}
			})
		}
		waitFor(t, "keys to be made", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(tokens) >= enough
		})
		g.kill()
		workers.Wait()
		g.start()
		for id, token := range tokens {
			want := http.StatusOK
			if revoked[id] {
				want = http.StatusUnauthorized
			}
			g.requireStatus(want, "GET", "/", token)
		}
	}
	t.Logf("%d keys, %d of them revoked, over 4 kills", len(tokens), len(revoked))
}

func createUntilKilled(g *gateway) (id, token string, err error) {
	header := http.Header{"Content-Type": {"application/json"}}
	status, body, err := g.ask(http.MethodPost, "/api_keys/organizations/acme/keys", header, `{"name":"test","userId":"alice"}`)
	if err != nil {
		return "", "", err
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil || status != http.StatusOK {
		return "", "", fmt.Errorf("HTTP %s: %w", strconv.Itoa(status), err)
	}
	g.keepSecret(e.Data["key"])
	return e.Data["id"], e.Data["key"], nil
}
