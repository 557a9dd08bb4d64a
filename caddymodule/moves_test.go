package caddymodule_test

import (
	"fmt"
	"testing"
)

const recordMoves = `
	events {
		on api_key_client_changed recorder
	}
	servers {
		trusted_proxies static 127.0.0.0/8
	}
`

// useFrom uses a key as a client elsewhere does, and brings it to the store.
func (g *gateway) useFrom(k key, address, userAgent string) {
	g.Helper()
	if a := g.send("GET", "/", "", k.header(), "X-Forwarded-For: "+address, "User-Agent: "+userAgent); a.Status != 200 {
		g.Fatalf("%d %s", a.Status, a.Text)
	}
	if err := running(g).Flush(g.Context()); err != nil {
		g.Fatal(err)
	}
}

func (g *gateway) moves() (lines []map[string]any) {
	for _, line := range g.logged() {
		if line["msg"] == "api key client changed" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestKeyThatIsUsedFromElsewhereIsToldOfThroughEventsAndTheLog(t *testing.T) {
	takeEvents()
	g := start(t, recordMoves, site)
	k, other := g.issue(reader), g.issue(reader)
	g.useFrom(k, "192.0.2.1", "curl/8.5.0")
	g.useFrom(other, "198.51.100.9", "a") // another key
	g.useFrom(k, "192.0.2.99", "curl/9.0.0")
	g.useFrom(k, "198.51.100.1", "curl/9.0.0") // the first event
	g.useFrom(k, "192.0.2.1", "curl/9.0.0")    // too soon for another
	g.await("the first event", func() bool {
		events.Lock()
		defer events.Unlock()
		return len(events.seen) == 1
	})
	if err := g.load(recordMoves, site+"\n# reloaded"); err != nil {
		t.Fatal(err)
	}
	g.useFrom(other, "198.51.100.9", "evil/1 "+k.Token) // the second, after a reload
	g.await("two lines of audit", func() bool { return len(g.moves()) >= 2 })
	g.await("how many were not told of", func() bool {
		for _, line := range g.logged() {
			if line["changes"] == 1.0 && line["level"] == "warn" {
				return true
			}
		}
		g.useFrom(k, "192.0.2.1", "curl/9.0.0")
		return false
	})
	stop(t) // tells the rest
	want := []string{
		"map[api_key_id:" + k.ID + " changed:network client_ip:198.51.100.1 organization_id:acme " +
			"previous_client_ip:192.0.2.99 previous_user_agent:curl/9.0.0 user_agent:curl/9.0.0]",
		"map[api_key_id:" + other.ID + " changed:user_agent client_ip:198.51.100.9 organization_id:acme " +
			"previous_client_ip:198.51.100.9 previous_user_agent:a user_agent:evil/1 " + k.Token[:3] + "REDACTED]",
	}
	seen, logged := takeEvents(), g.moves()
	if len(seen) != len(want) || len(logged) != len(want) {
		t.Fatalf("%d events and %d lines, want %d: %v %v", len(seen), len(logged), len(want), seen, logged)
	}
	for i := range want {
		if got := fmt.Sprint(seen[i].Data); got != want[i] || seen[i].Name() != "api_key_client_changed" {
			t.Errorf("event %s %s\nwant %s", seen[i].Name(), got, want[i])
		}
		if logged[i]["logger"] != "api_keys.audit" || logged[i]["level"] != "info" {
			t.Errorf("logged %v", logged[i])
		}
		for _, name := range []string{"level", "ts", "logger", "msg"} {
			delete(logged[i], name)
		}
		if got := fmt.Sprint(logged[i]); got != want[i] {
			t.Errorf("logged %s\nwant %s", got, want[i])
		}
	}
}

func TestWithoutClientsInTheUsageNoChangeOfThemIsToldOf(t *testing.T) {
	for _, usage := range []string{"time", "off"} {
		takeEvents()
		g := start(t, recordMoves+"api_keys {\nusage "+usage+"\n}", site)
		k := g.issue(reader)
		for i := range 5 {
			g.useFrom(k, fmt.Sprintf("192.0.%d.1", i), fmt.Sprintf("agent%d", i))
		}
		stop(t)
		if seen, logged := takeEvents(), g.moves(); len(seen) != 0 || len(logged) != 0 {
			t.Errorf("usage %s: %v %v", usage, seen, logged)
		}
	}
}
