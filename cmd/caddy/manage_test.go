package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// inSeconds is a time as clients write it.
func inSeconds(n int) string {
	return time.Now().Add(time.Duration(n) * time.Second).UTC().Format(time.RFC3339Nano)
}

// issueIn makes a read-write key of a user of an organization as the operator.
func (g *gateway) issueIn(organization, user string) map[string]string {
	g.t.Helper()
	body := fmt.Sprintf(`{"name":"test","scope":"read-write","userId":%q}`, user)
	status, answer, err := g.ask(http.MethodPost, "/api_keys/organizations/"+organization+"/keys", http.Header{"Content-Type": {"application/json"}}, body)
	if err != nil || status != http.StatusOK {
		g.t.Fatalf("issuing a key: HTTP %d, %v, %s", status, err, answer)
	}
	key := decode(g.t, answer).Data
	g.keepSecret(key["key"])
	return key
}

func TestAChangeOfAKeyIsInForceAtOnce(t *testing.T) {
	g := startGateway(t, plainSite)
	caller, foreign := g.issueIn("acme", "alice"), g.issueIn("globex", "mallory")
	key := g.issue(nil)
	path := "/v1/api-keys/" + key["id"]
	patch := func(body string, by map[string]string) answer {
		return g.do("PATCH", path, body, bearer(by), asJSON)
	}
	g.requireStatus(403, "POST", "/", key["key"])
	for _, row := range []struct {
		body, field, want string
		write             int // what a write is answered from then on
	}{
		{`{"scope":"read-write"}`, "scope", "read-write", 200},
		{`{"scope":"read"}`, "scope", "read", 403},
		{`{"name":"second"}`, "name", "second", 403},
		{`{"description":"what for"}`, "description", "what for", 403},
		{`{"description":null}`, "description", "", 403},
		{`{"expiresAt":"2100-01-31T12:00:00Z"}`, "expiresAt", "2100-01-31T12:00:00Z", 403},
		{`{"expiresAt":null,"scope":"read-write"}`, "expiresAt", "", 200},
	} {
		shown := g.requireKey(patch(row.body, caller))
		if shown[row.field] != row.want || shown["key"] != "" {
			t.Errorf("%s: answered with %v", row.body, shown)
		}
		if seen := g.look(key["id"])[row.field]; seen != row.want {
			t.Errorf("%s: it is %q then", row.body, seen)
		}
		g.requireStatus(row.write, "POST", "/", key["key"])
	}
	for _, row := range []struct {
		body   string
		by     map[string]string
		status int
		reason string
	}{
		{`{"expiresAt":"2020-01-01T00:00:00Z"}`, caller, 400, "invalid_field"},
		{`{"expires_at":"2100-01-01T00:00:00Z"}`, caller, 400, "unknown_field"},
		{`{"userId":"bob"}`, caller, 400, "unknown_field"},
		{`{"name":"x"}`, foreign, 404, "not_found"},
	} {
		g.requireRefused(patch(row.body, row.by), row.status, row.reason)
	}
	// An end that comes is in force without another call.
	g.requireKey(patch(`{"expiresAt":"`+inSeconds(1)+`"}`, key))
	waitFor(t, "the key to expire", func() bool { return g.send("GET", "/", key["key"], "").status == 401 })
	g.requireKey(patch(`{"expiresAt":"`+inSeconds(1000)+`"}`, caller))
	g.requireStatus(200, "GET", "/", key["key"])
	g.requireRefused(patch(`{"expiresAt":null}`, key), 403, "own_life")
	g.requireKey(g.do("DELETE", path, "", bearer(caller)))
	g.requireRefused(patch(`{"name":"x"}`, caller), 409, "not_active")
}

func TestARotatedKeyHasOneSuccessorAndEndsWithTheGrace(t *testing.T) {
	g := startGateway(t, plainSite)
	caller, bob := g.issueIn("acme", "alice"), g.issueIn("acme", "bob")
	rotate := func(id, body string, by map[string]string) answer {
		return g.do("POST", "/v1/api-keys/"+id+"/rotate", body, bearer(by), asJSON)
	}
	life := func(key map[string]string) time.Duration {
		began, _ := time.Parse(time.RFC3339Nano, key["createdAt"])
		ends, err := time.Parse(time.RFC3339Nano, key["expiresAt"])
		if err != nil {
			t.Errorf("it ends at %q", key["expiresAt"])
		}
		return ends.Sub(began)
	}
	near := func(a, b time.Duration) bool { return (a - b).Abs() < 5*time.Second }

	old := g.issue(map[string]string{"scope": "read-write", "name": "first", "description": "what for", "expiresAt": inSeconds(3600)})
	next := g.requireKey(rotate(old["id"], `{"gracePeriod":"30m"}`, caller))
	for _, field := range []string{"name", "description", "scope", "userId", "organizationId"} {
		if next[field] != old[field] || next["createdBy"] != "alice" {
			t.Errorf("%s was %q and is %q", field, old[field], next[field])
		}
	}
	if !near(life(next), time.Hour) {
		t.Errorf("it lives for %v", life(next))
	}
	g.requireStatus(200, "POST", "/", next["key"])
	if a := g.do("GET", "/", "", bearer(old), "User-Agent: laggard"); a.status != 200 {
		t.Errorf("inside the grace: HTTP %d", a.status)
	}
	shown := g.look(old["id"])
	if shown["replacedBy"] != next["id"] || !near(life(shown), 30*time.Minute) || shown["lastUsedUserAgent"] != "laggard" {
		t.Errorf("the old one is shown as %v", shown)
	}
	g.requireRefused(rotate(old["id"], `{}`, caller), 409, "not_active")

	// Without a body it is a day; the body can say when the new one ends.
	again := g.requireKey(rotate(next["id"], ``, caller))
	if shown := g.look(next["id"]); shown["expiresAt"] != next["expiresAt"] { // it ends before the grace
		t.Errorf("a rotation made it live until %s", shown["expiresAt"])
	}
	last := g.requireKey(rotate(again["id"], `{"gracePeriod":"0","expiresAt":"2100-01-31T12:00:00Z"}`, caller))
	if last["expiresAt"] != "2100-01-31T12:00:00Z" {
		t.Errorf("it ends at %s", last["expiresAt"])
	}
	g.requireStatus(401, "GET", "/", again["key"])
	g.requireStatus(200, "GET", "/", last["key"])
	endless := g.issue(nil)
	if next := g.requireKey(rotate(endless["id"], `{}`, caller)); next["expiresAt"] != "" || !near(life(g.look(endless["id"])), 24*time.Hour) {
		t.Errorf("a key without an end: %v, and the old one %v", next, g.look(endless["id"]))
	}

	// Who may not, and what cannot be.
	revoked, expired := g.issue(nil), g.issue(map[string]string{"expiresAt": inSeconds(1)})
	g.requireKey(g.do("DELETE", "/v1/api-keys/"+revoked["id"], "", bearer(caller)))
	waitFor(t, "the key to expire", func() bool { return g.send("GET", "/", expired["key"], "").status == 401 })
	for _, row := range []struct {
		id, body string
		by       map[string]string
		status   int
		reason   string
	}{
		{revoked["id"], `{}`, caller, 409, "not_active"},
		{expired["id"], `{}`, caller, 409, "not_active"},
		{again["id"], `{}`, caller, 409, "not_active"},
		{last["id"], `{}`, bob, 403, "not_owner"},
		{last["id"], `{}`, g.issueIn("globex", "alice"), 404, "not_found"},
		{last["id"], `{}`, g.issue(nil), 403, "insufficient_scope"},
		{last["id"], `{"gracePeriod":"-1h"}`, caller, 400, "invalid_field"},
		{last["id"], `{"scope":"read-write"}`, caller, 400, "unknown_field"},
	} {
		g.requireRefused(rotate(row.id, row.body, row.by), row.status, row.reason)
	}
	account := g.requireKey(g.do("POST", "/v1/api-keys", `{"name":"nightly","serviceAccountId":"backup"}`, bearer(caller), asJSON))
	if next := g.requireKey(rotate(account["id"], `{}`, bob)); next["serviceAccountId"] != "backup" || next["userId"] != "" {
		t.Errorf("the key of a service account became %v", next)
	}
	// One that rotates itself goes on with the new token.
	self := g.requireKey(rotate(bob["id"], `{"gracePeriod":"0"}`, bob))
	g.requireRefused(g.do("GET", "/v1/api-keys", "", bearer(bob)), 401, "invalid_token")
	if a := g.do("GET", "/v1/api-keys", "", bearer(self)); a.status != 200 {
		t.Errorf("HTTP %d %s", a.status, a.body)
	}
}

func TestVerifyAndSelfTellOnlyOfOnesOwn(t *testing.T) {
	g := startGateway(t, plainSite)
	caller, read, foreign := g.issueIn("acme", "alice"), g.issue(nil), g.issueIn("globex", "mallory")
	revoked := g.issue(nil)
	g.requireKey(g.do("DELETE", "/v1/api-keys/"+revoked["id"], "", bearer(caller)))
	verify := func(token string, by map[string]string) answer {
		return g.do("POST", "/v1/api-keys/verify", fmt.Sprintf(`{"key":%q}`, token), bearer(by), asJSON)
	}
	for _, key := range []map[string]string{caller, read, foreign} {
		if self := g.requireKey(g.do("GET", "/v1/api-keys/self", "", bearer(key))); self["id"] != key["id"] || self["key"] != "" {
			t.Errorf("it is told that it is %v", self)
		}
	}
	before := g.look(read["id"])["lastUsedAt"]
	if known := g.requireKey(verify(read["key"], caller)); known["id"] != read["id"] || known["organizationId"] != "acme" || known["key"] != "" {
		t.Errorf("verify tells %v", known)
	}
	if after := g.look(read["id"])["lastUsedAt"]; after != before {
		t.Error("to verify a key is a use of it")
	}
	for name, token := range map[string]string{"foreign": foreign["key"], "revoked": revoked["key"], "mistyped": mistyped(read["key"]), "not a token": "x"} {
		if a := verify(token, caller); a.status != 404 {
			t.Errorf("%s: HTTP %d %s", name, a.status, a.body)
		}
	}
	g.requireRefused(verify(read["key"], read), 403, "insufficient_scope")
	g.requireRefused(g.do("POST", "/v1/api-keys/verify", `{}`, bearer(caller), asJSON), 400, "missing_field")
}

// A page is the data of a list.
type page struct {
	Items      []map[string]string
	NextCursor string
}

func (g *gateway) list(query string, by map[string]string) page {
	g.t.Helper()
	a := g.do("GET", "/v1/api-keys"+query, "", bearer(by))
	var list struct{ Data page }
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != 200 {
		g.t.Fatalf("%s: HTTP %d, %v: %s", query, a.status, err, a.body)
	}
	return list.Data
}

func TestAListIsFilteredAndPagedAndOfOneTenant(t *testing.T) {
	g := startGateway(t, plainSite)
	caller, foreign := g.issueIn("acme", "boss"), g.issueIn("globex", "boss")
	const keys = 25
	var made []map[string]string
	for i := range keys {
		body := []string{
			`{"name":"%d"}`, `{"name":"%d","scope":"read-write"}`, `{"name":"%d","serviceAccountId":"backup"}`, `{"name":"%d","expiresAt":"` + inSeconds(1) + `"}`, `{"name":"%d"}`,
		}[i%5]
		key := g.requireKey(g.do("POST", "/v1/api-keys", fmt.Sprintf(body, i), bearer(caller), asJSON))
		if made = append(made, key); i%5 == 4 {
			g.requireKey(g.do("DELETE", "/v1/api-keys/"+key["id"], "", bearer(caller)))
		}
		g.issueIn("globex", "alice")
	}
	waitFor(t, "the keys to expire", func() bool { return len(g.list("?status=expired&limit=100", caller).Items) == 5 })
	g.requireStatus(200, "GET", "/", made[0]["key"])

	for query, want := range map[string]int{
		"?status=active": 16, "?status=expired": 5, "?status=revoked": 5,
		"?scope=read-write": 6, "?scope=read": 20, "?userId=boss": 21, "?userId=nobody": 0, "?serviceAccountId=backup": 5,
		"?unusedSince=2000-01-01T00:00:00Z": keys - 1, // not the caller, and not the first
		"?status=revoked&scope=read":        5, "?status=revoked&serviceAccountId=backup": 0,
	} {
		found := make(map[string]bool)
		for cursor, pages := "", 0; ; pages++ {
			got := g.list(query+"&limit=3"+cursor, caller)
			for _, key := range got.Items {
				if found[key["id"]] || key["organizationId"] != "acme" || key["key"] != "" {
					t.Errorf("%s shows %v", query, key)
				}
				found[key["id"]] = true
			}
			if len(got.Items) > 3 || pages > keys {
				t.Fatalf("%s: %d keys on page %d", query, len(got.Items), pages)
			}
			if got.NextCursor == "" {
				break
			}
			cursor = "&cursor=" + url.QueryEscape(got.NextCursor)
		}
		if len(found) != want {
			t.Errorf("%s finds %d keys, want %d", query, len(found), want)
		}
	}

	first := g.list("", caller)
	if len(first.Items) != 20 || first.Items[0]["id"] != made[keys-1]["id"] || first.NextCursor == "" {
		t.Errorf("the first page has %d keys from %v on", len(first.Items), first.Items[0])
	}
	if got := g.list("?limit=100", caller); len(got.Items) != keys+1 || got.NextCursor != "" {
		t.Errorf("a page of 100 has %d keys", len(got.Items))
	}
	cursor := "cursor=" + url.QueryEscape(first.NextCursor)
	for _, row := range []struct {
		query string
		by    map[string]string
	}{
		{"?" + cursor, foreign}, {"?scope=read&" + cursor, caller}, {"?cursor=x", caller}, {"?cursor=", caller},
		{"?limit=0", caller}, {"?limit=101", caller}, {"?status=all", caller}, {"?unusedSince=yesterday", caller}, {"?scope=read&scope=read", caller},
	} {
		g.requireRefused(g.do("GET", "/v1/api-keys"+row.query, "", bearer(row.by)), 400, "invalid_parameter")
	}
	g.requireRefused(g.do("GET", "/v1/api-keys?organizationId=globex", "", bearer(caller)), 400, "unknown_parameter")
	g.requireRefused(g.do("GET", "/v1/api-keys", "", bearer(made[0])), 403, "insufficient_scope")
}

func TestARepeatedCallMakesNoSecondKeyAlsoAfterARestart(t *testing.T) {
	g := startGateway(t, plainSite)
	alice, bob, mallory := g.issueIn("acme", "alice"), g.issueIn("acme", "bob"), g.issueIn("globex", "alice")
	once := func(path, key, body string, by map[string]string) answer {
		return g.do("POST", "/v1/api-keys"+path, body, bearer(by), asJSON, "Idempotency-Key: "+key)
	}
	count := func() int { return len(g.list("?limit=100", alice).Items) }
	made := g.requireKey(once("", "one", `{"name":"x"}`, alice))
	rotated := g.requireKey(once("/"+made["id"]+"/rotate", "one", `{}`, alice))
	g.requireKey(once("", "one", `{"name":"x"}`, bob)) // is another caller
	g.requireKey(once("", "one", `{"name":"x"}`, mallory))
	before := count()

	repeat := func() {
		t.Helper()
		for _, row := range []struct{ path, id string }{{"", made["id"]}, {"/" + made["id"] + "/rotate", rotated["id"]}} {
			body := map[bool]string{true: `{"name":"x"}`, false: `{}`}[row.path == ""]
			a := once(row.path, "one", body, alice)
			g.requireRefused(a, 409, "idempotency_replayed")
			if data := decode(t, a.body).Data; data["id"] != row.id || aToken.Match(a.body) {
				t.Errorf("the repetition is answered %s", a.body)
			}
		}
		g.requireRefused(once("", "one", `{"name":"y"}`, alice), 422, "idempotency_reused")
		g.requireRefused(once("/"+made["id"]+"/rotate", "one", `{"gracePeriod":"0"}`, alice), 422, "idempotency_reused")
		if after := count(); after != before {
			t.Errorf("there were %d keys and are %d", before, after)
		}
	}
	repeat()
	g.stop()
	g.start()
	repeat()
	g.kill()
	g.start()
	repeat()
	for _, bad := range []string{"", "two words", strings.Repeat("x", 256)} {
		g.requireRefused(once("", bad, `{"name":"x"}`, alice), 400, "invalid_header")
	}
	// Calls at the same time make one.
	type result struct {
		status int
		id     string
	}
	results := make(chan result)
	for range 8 {
		go func() {
			a := once("", "race", `{"name":"x"}`, alice)
			data := decode(t, a.body).Data
			if data["key"] != "" {
				g.keepSecret(data["key"])
			}
			results <- result{a.status, data["id"]}
		}()
	}
	ids, statuses := make(map[string]bool), make(map[int]int)
	for range 8 {
		r := <-results
		ids[r.id] = true
		statuses[r.status]++
	}
	if len(ids) != 1 || statuses[200] != 1 || statuses[409] != 7 {
		t.Errorf("eight calls at once were answered %v and named %d keys", statuses, len(ids))
	}
}
