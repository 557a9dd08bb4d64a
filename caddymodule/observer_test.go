package caddymodule_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// recorder is an event handler that keeps the events of all configurations.
type recorder struct{}

var events struct {
	sync.Mutex
	seen []caddy.Event
}

func init() { caddy.RegisterModule(recorder{}) }

func (recorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.recorder", New: func() caddy.Module { return new(recorder) }}
}

func (recorder) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (recorder) Handle(_ context.Context, e caddy.Event) error {
	events.Lock()
	defer events.Unlock()
	events.seen = append(events.seen, e)
	return nil
}

var _ caddyevents.Handler = recorder{}

const recordEvents = `
	events {
		on api_key_created recorder
		on api_key_revoked recorder
	}
`

func takeEvents() (seen []caddy.Event) {
	events.Lock()
	defer events.Unlock()
	seen, events.seen = events.seen, nil
	return seen
}

func TestChangesAreToldThroughEventsAndTheLog(t *testing.T) {
	takeEvents()
	g := start(t, recordEvents, site)
	first := g.issue(writer)
	made := g.create(first, `{"name":"made"}`)
	second := key{made.text("id"), made.text("key")}
	g.send("DELETE", "/v1/api-keys/"+second.ID, "", first.header())
	g.send("DELETE", "/v1/api-keys/"+second.ID, "", first.header()) // changes nothing
	g.send("DELETE", "/v1/api-keys/key_0352LEivjpyT0uQI9pd2Xs", "", first.header())
	g.send("POST", "/v1/api-keys", `{}`, first.header(), asJSON)
	g.revoke(first)

	want := []struct{ event, log, data string }{
		{"api_key_created", "api key issued", "map[api_key_id:" + first.ID + " by:operator organization_id:acme scope:read-write]"},
		{"api_key_created", "api key issued", "map[api_key_id:" + second.ID + " by:alice by_api_key_id:" + first.ID + " organization_id:acme scope:read]"},
		{"api_key_revoked", "api key revoked", "map[api_key_id:" + second.ID + " by:alice by_api_key_id:" + first.ID + " organization_id:acme scope:read]"},
		{"api_key_revoked", "api key revoked", "map[api_key_id:" + first.ID + " by:operator organization_id:acme scope:read-write]"},
	}
	seen := takeEvents()
	var logged []string
	for _, line := range g.logged() {
		if line["logger"] == "api_keys.audit" && strings.HasPrefix(line["msg"].(string), "api key ") {
			logged = append(logged, line["msg"].(string))
			data := fmt.Sprint(map[string]any{"api_key_id": line["api_key_id"], "organization_id": line["organization_id"], "by": line["by"], "scope": line["scope"]})
			if by := line["by_api_key_id"]; by != nil && by != "" {
				data = strings.Replace(data, " organization_id", fmt.Sprintf(" by_api_key_id:%v organization_id", by), 1)
			}
			if i := len(logged) - 1; i < len(want) && (data != want[i].data || line["level"] != "info") {
				t.Errorf("logged %v, want %s", line, want[i].data)
			}
		}
	}
	for _, event := range seen { // both tell from where, too
		if event.Data["client_ip"] == nil || event.Data["request_id"] == nil {
			t.Errorf("event %v", event.Data)
		}
		delete(event.Data, "client_ip")
		delete(event.Data, "request_id")
	}
	for i, w := range want {
		if i >= len(seen) || seen[i].Name() != w.event || fmt.Sprint(seen[i].Data) != w.data {
			t.Errorf("events %v, want %s %s", seen, w.event, w.data)
		}
		if i >= len(logged) || logged[i] != w.log {
			t.Errorf("logged %v, want %s", logged, w.log)
		}
	}
	if len(seen) != len(want) || len(logged) != len(want) {
		t.Errorf("%d events and %d lines, want %d", len(seen), len(logged), len(want))
	}
}

// A configuration that was reloaded tells of the changes that come after.
func TestChangesAreToldAfterAReload(t *testing.T) {
	g := start(t, ``, site)
	if err := g.load(recordEvents, site); err != nil {
		t.Fatal(err)
	}
	takeEvents()
	k := g.issue(reader)
	if seen := takeEvents(); len(seen) != 1 || seen[0].Data["api_key_id"] != k.ID {
		t.Errorf("%v", seen)
	}
}

// A change may end after the configuration that made it.
func TestAChangeOfAConfigurationThatHasGoneIsToldByTheOneInForce(t *testing.T) {
	g := start(t, recordEvents, site)
	k := g.issue(reader)
	gone := running(t)
	if err := g.load(recordEvents+"log audit {\noutput file DIR/audit\ninclude api_keys.audit\n}", site); err != nil {
		t.Fatal(err)
	}
	takeEvents()
	id, _ := apikey.ParseID(k.ID)
	if _, err := gone.Revoke(t.Context(), apikey.Operator(""), id); err != nil {
		t.Fatal(err)
	}
	if seen := takeEvents(); len(seen) != 1 || seen[0].Name() != "api_key_revoked" || seen[0].Data["api_key_id"] != k.ID {
		t.Errorf("events %v", seen)
	}
	if text, err := os.ReadFile(filepath.Join(g.dir, "audit")); err != nil || !strings.Contains(string(text), "api key revoked") {
		t.Errorf("the audit log has %q, %v", text, err)
	}
}

// After all that can be done with keys, nothing but the answers that made them
// has any part of a secret.
func TestSecretsAreNowhere(t *testing.T) {
	takeEvents()
	g := start(t, recordEvents+`
		api_keys {
			per_key_metrics 10
		}`, site)
	write := g.issue(writer)
	made := g.create(write, `{"name":"made"}`)
	other := key{made.text("id"), made.text("key")}
	keys := []key{write, other, g.issue(reader), g.issueRevoked(), g.issueExpired()}
	var answers []answer
	for _, k := range keys {
		token := k.Token
		for _, header := range []string{k.header(), "Authorization: bearer " + token, k.header() + " x", "Authorization: Bearer " + swap(token, 70),
			"Authorization: Bearer " + forge(swap(idOf(token), 20), secretOf(token)), "Authorization: Basic " + token} {
			for _, call := range []string{"GET /", "POST /", "GET /v1/api-keys", "GET /v1/api-keys/" + k.ID, "GET /v1/api-keys/x", "DELETE /v1/api-keys", "HEAD /"} {
				method, path, _ := strings.Cut(call, " ")
				answers = append(answers, g.send(method, path, "", header))
			}
		}
		for _, body := range []string{
			`{"name":"` + token + `"}`, `{"name":"x","description":"` + token + `"}`, `{"` + token + `":"x"}`, `{"name":"x","scope":"` + token + `"}`,
			`{"name":"x","expiresAt":"` + token + `"}`, `{"name":"x","serviceAccountId":"a ` + token + `"}`, token, `{"name":` + token + `}`,
		} {
			answers = append(answers, g.create(write, body), g.operate("POST", "/api_keys/organizations/acme/keys", body, asJSON))
		}
		answers = append(answers, g.lookUp(k), g.operate("GET", "/api_keys/organizations/acme/keys", ""), g.operate("DELETE", "/api_keys/keys/nothing", ""))
	}
	if err := g.load("api_keys {\nidentity_header x\n}", site); err == nil {
		t.Error("a bad configuration was loaded")
	}
	if err := g.load(recordEvents, site); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		answers = append(answers, g.operate("GET", "/config/", ""), g.operate("GET", "/metrics", ""), g.operate("GET", "/api_keys/ready", ""))
		answers = append(answers, g.operate("GET", "/debug/vars", ""), g.operate("GET", "/debug/pprof/goroutine?debug=2", ""))
	}
	stop(t)

	places := map[string][]byte{"an answer": fmt.Append(nil, answers), "an event": fmt.Append(nil, takeEvents()), "the upstream": fmt.Append(nil, g.upstream.take())}
	filepath.WalkDir(g.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			places[path], err = os.ReadFile(path)
		}
		if err != nil {
			t.Error(err)
		}
		return nil
	})
	if len(places["an answer"]) < 10_000 || len(places[filepath.Join(g.dir, "log")]) < 10_000 || len(places[g.storePath()]) < 10_000 {
		t.Fatal("there is little to look at")
	}
	for _, k := range keys {
		secret := secretOf(k.Token)
		digest := sha256.Sum256([]byte(secret))
		for form, text := range map[string]string{
			"the secret": secret, "the start of the secret": secret[:12], "the end of the secret": secret[31:], "the checksum": k.Token[3+22+40:],
			"the secret in hex": hex.EncodeToString([]byte(secret)), "the secret in base64": base64.RawStdEncoding.EncodeToString([]byte(secret))[:50],
			"the secret in a URL": url.QueryEscape(k.Token), "the digest": string(digest[:]), "the digest in hex": hex.EncodeToString(digest[:]),
			"the digest in base64": base64.StdEncoding.EncodeToString(digest[:]),
		} {
			for place, has := range places {
				if bytes.Contains(has, []byte(text)) && (form != "the digest" || place != g.storePath()) {
					t.Errorf("%s is in %s", form, place)
				}
			}
		}
	}
}

const recordAllEvents = `
	events {
		on api_key_created recorder
		on api_key_updated recorder
		on api_key_rotated recorder
		on api_key_revoked recorder
		on api_key_imported recorder
	}
`

func TestEveryChangeInTheLifeOfAKeyIsToldThroughEventsAndTheLog(t *testing.T) {
	g := start(t, recordAllEvents, site)
	first, second := g.issue(writer), g.issue(reader)
	takeEvents()
	hash := sha256.Sum256([]byte("a token of another make"))
	line := `{"hash":"` + hex.EncodeToString(hash[:]) + `","algorithm":"sha256","name":"legacy","organizationId":"globex","userId":"carol"}`
	const asLines = "Content-Type: application/x-ndjson"
	for _, a := range []answer{
		g.operate("PATCH", "/api_keys/keys/"+second.ID, `{"name":"new name"}`, asJSON),
		g.send("PATCH", "/v1/api-keys/"+second.ID, `{"scope":"read-write"}`, first.header(), asJSON),
		g.send("POST", "/v1/api-keys/"+second.ID+"/rotate", `{"gracePeriod":"1h"}`, first.header(), asJSON),
		g.operate("POST", "/api_keys/import?dry_run=true", line, asLines), // changes nothing
		g.operate("POST", "/api_keys/import", line, asLines),
		g.operate("POST", "/api_keys/import", line, asLines), // changes nothing
	} {
		if a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
	}
	if a := g.send("POST", "/v1/api-keys/"+second.ID+"/rotate", `{}`, first.header(), asJSON); a.Status != 409 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if a := g.send("PATCH", "/v1/api-keys/"+second.ID, `{"name":""}`, first.header(), asJSON); a.Status != 400 {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	replacedBy, end := g.lookUp(second).text("replacedBy"), g.lookUp(second).text("expiresAt")
	legacy, _ := g.operate("GET", "/api_keys/organizations/globex/keys", "").Data["items"].([]any)
	if len(legacy) != 1 {
		t.Fatalf("imported: %v", legacy)
	}
	byAlice := " by:alice by_api_key_id:" + first.ID + " client_ip:127.0.0.1 organization_id:acme"
	want := []struct{ event, log, data string }{
		{"api_key_updated", "api key updated", "map[api_key_id:" + second.ID + " by:operator client_ip:127.0.0.1 organization_id:acme scope:read]"},
		{"api_key_updated", "api key updated", "map[api_key_id:" + second.ID + byAlice + " scope:read-write]"},
		{"api_key_rotated", "api key rotated", "map[api_key_id:" + second.ID + strings.Replace(byAlice, " organization_id", " expires_at:"+end+" organization_id", 1) + " replaced_by:" + replacedBy + " scope:read-write]"},
		{"api_key_imported", "api key imported", fmt.Sprintf("map[api_key_id:%v by:operator client_ip:127.0.0.1 organization_id:globex scope:read]", legacy[0].(map[string]any)["id"])},
	}
	requests := make(map[string]bool)
	withoutRequest := func(data map[string]any) string {
		if id, ok := data["request_id"].(string); ok {
			requests[id] = true
		}
		rest := maps.Clone(data)
		for _, name := range []string{"request_id", "level", "ts", "logger", "msg"} {
			delete(rest, name)
		}
		return fmt.Sprint(rest)
	}
	var seen, logged []string
	for _, e := range takeEvents() {
		seen = append(seen, e.Name()+" "+withoutRequest(e.Data))
	}
	for _, line := range g.logged() {
		if line["logger"] == "api_keys.audit" && line["msg"] != "api key issued" {
			logged = append(logged, fmt.Sprint(line["msg"], " ", withoutRequest(line)))
		}
	}
	for i, w := range want {
		if i >= len(seen) || seen[i] != w.event+" "+w.data {
			t.Errorf("events\n%s\nwant %s %s", strings.Join(seen, "\n"), w.event, w.data)
		}
		if i >= len(logged) || logged[i] != w.log+" "+w.data {
			t.Errorf("logged\n%s\nwant %s %s", strings.Join(logged, "\n"), w.log, w.data)
		}
	}
	if len(seen) != len(want) || len(logged) != len(want) || len(requests) != 4 {
		t.Errorf("%d events, %d lines and %d requests, want %d", len(seen), len(logged), len(requests), len(want))
	}
}
