package main_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheContractFromTheFirstKeyToTheLastRefusal(t *testing.T) {
	g := startGateway(t, plainSite)
	first := g.issue(map[string]string{"scope": "read-write", "name": "first"})
	if first["createdBy"] != "operator" {
		t.Errorf("the first key was made by %q", first["createdBy"])
	}

	empty := g.send("POST", "/v1/api-keys", first["key"], `{}`)
	refused := decode(t, empty.body)
	if empty.status != 400 || refused.Code != 400 || refused.Data["reason"] != "missing_field" || refused.Data["field"] != "name" {
		t.Errorf("{} is answered HTTP %d: %s", empty.status, empty.body)
	}

	made := g.send("POST", "/v1/api-keys", first["key"], `{"name":"x"}`)
	answer := decode(t, made.body)
	if made.status != 200 || answer.Code != 200 || answer.Message != "success" {
		t.Fatalf(`{"name":"x"} is answered HTTP %d: %s`, made.status, made.body)
	}
	key := answer.Data
	g.keepSecret(key["key"])
	fields := []string{"createdAt", "createdBy", "id", "key", "keyPrefix", "name", "organizationId", "scope", "userId"}
	if got := slices.Sorted(maps.Keys(key)); !slices.Equal(got, fields) {
		t.Errorf("data has %q, want %q", got, fields)
	}
	for field, want := range map[string]string{
		"name": "x", "organizationId": "acme", "scope": "read", "userId": "alice", "createdBy": "alice",
		"id": "key_" + strings.TrimPrefix(key["keyPrefix"], "ak_"),
	} {
		if key[field] != want {
			t.Errorf("%s is %q, want %q", field, key[field], want)
		}
	}
	if !aToken.MatchString(key["key"]) || !strings.HasPrefix(key["key"], key["keyPrefix"]) {
		t.Error("the token is not of the documented shape")
	}
	if at, err := time.Parse(time.RFC3339, key["createdAt"]); err != nil || !strings.HasSuffix(key["createdAt"], "Z") || time.Since(at).Abs() > time.Hour {
		t.Errorf("createdAt is %q", key["createdAt"])
	}
	if cache := made.header.Get("Cache-Control"); cache != "no-store" {
		t.Errorf("Cache-Control is %q", cache)
	}
	if n := len(g.upstream.seen()); n != 0 {
		t.Errorf("%d requests for management reached the upstream", n)
	}

	// The API behind learns who calls, and not by what key.
	g.requireStatus(200, "GET", "/hello", key["key"])
	seen := g.upstream.seen()
	if len(seen) != 1 {
		t.Fatalf("the upstream saw %d requests, want 1", len(seen))
	}
	for header, want := range map[string]string{
		"Authorization": "", "X-Api-Key-Id": key["id"], "X-Organization-Id": "acme", "X-User-Id": "alice", "X-Api-Key-Scope": "read",
	} {
		if got := seen[0].Header.Get(header); got != want {
			t.Errorf("the upstream saw %s: %q, want %q", header, got, want)
		}
	}

	// The scope read.
	g.requireStatus(403, "POST", "/hello", key["key"])
	g.requireStatus(200, "GET", "/v1/api-keys/"+key["id"], key["key"])
	g.requireStatus(403, "GET", "/v1/api-keys/"+first["id"], key["key"])
	g.requireStatus(403, "GET", "/v1/api-keys", key["key"])
	g.requireStatus(403, "POST", "/v1/api-keys", key["key"])
	g.requireStatus(403, "DELETE", "/v1/api-keys/"+key["id"], key["key"])

	// When, from where and with what it was used.
	used := decode(t, g.send("GET", "/v1/api-keys/"+key["id"], first["key"], "").body).Data
	if used["lastUsedAt"] == "" || used["lastUsedIp"] != "127.0.0.1" || used["lastUsedUserAgent"] != "Go-http-client/1.1" {
		t.Errorf("its use is shown as %q from %q with %q", used["lastUsedAt"], used["lastUsedIp"], used["lastUsedUserAgent"])
	}
	if _, shown := used["key"]; shown {
		t.Error("the token is shown again")
	}

	revoked := g.send("DELETE", "/v1/api-keys/"+key["id"], first["key"], "")
	if data := decode(t, revoked.body).Data; revoked.status != 200 || data["revokedAt"] == "" {
		t.Errorf("revoking is answered HTTP %d: %s", revoked.status, revoked.body)
	}
	g.requireStatus(401, "GET", "/hello", key["key"])
	g.requireStatus(401, "GET", "/v1/api-keys/"+key["id"], key["key"])
	if n := len(g.upstream.seen()); n != 0 {
		t.Errorf("%d requests that were refused reached the upstream", n)
	}
}

func TestNoRefusedRequestReachesTheUpstream(t *testing.T) {
	g := startGateway(t, plainSite)
	read := g.issue(nil)["key"]
	for name, c := range map[string]struct {
		method, authorization string
		status                int
		reason                string
	}{
		"no credential":     {"GET", "", 401, "no_credential"},
		"another scheme":    {"GET", "Basic YWxpY2U6c2VjcmV0", 401, "no_credential"},
		"an empty key":      {"GET", "Bearer ", 400, "invalid_request"},
		"two words":         {"GET", "Bearer " + read + " " + read, 400, "invalid_request"},
		"not a key":         {"GET", "Bearer hello", 401, "invalid_token"},
		"a key and more":    {"GET", "Bearer " + read + "0", 401, "invalid_token"},
		"a mistyped key":    {"GET", "Bearer " + mistyped(read), 401, "invalid_token"},
		"a read key writes": {"DELETE", "Bearer " + read, 403, "insufficient_scope"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, g.url+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.authorization != "" {
				req.Header.Set("Authorization", c.authorization)
			}
			resp, err := g.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var body bytes.Buffer
			body.ReadFrom(resp.Body)
			answer := decode(t, body.Bytes())
			if resp.StatusCode != c.status || answer.Code != c.status || answer.Data["reason"] != c.reason {
				t.Errorf("HTTP %d: %s, want %d %s", resp.StatusCode, &body, c.status, c.reason)
			}
		})
	}
	if n := len(g.upstream.seen()); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestEveryBadKeyGetsTheSameAnswer(t *testing.T) {
	g := startGateway(t, plainSite)
	good := g.issue(nil)
	revoked := g.issue(nil)
	if stdout, stderr, code := g.run(g.command("api-keys", "revoke", revoked["id"])); code != 0 {
		t.Fatal(stdout, stderr)
	}
	expired := g.issue(map[string]string{"expiresAt": time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339Nano)})
	waitFor(t, "the key to expire", func() bool { return g.send("GET", "/", expired["key"], "").status == 401 })

	bad := map[string]string{
		"revoked":                   revoked["key"],
		"expired":                   expired["key"],
		"mistyped":                  mistyped(good["key"]),
		"unknown":                   withChecksum("ak_" + strings.Repeat("0", 21) + "1" + secretOf(good["key"])),
		"the secret of another key": withChecksum(good["keyPrefix"] + secretOf(revoked["key"])),
		"of another gateway":        "sk_live_0123456789",
	}
	var first, firstName string
	for name, token := range bad {
		got := g.send("GET", "/", token, "")
		id := decode(t, got.body).RequestID
		got.header.Del("Date")
		text := fmt.Sprintln(got.status, got.header) + strings.ReplaceAll(string(got.body), id, "ID")
		if got.status != 401 {
			t.Errorf("%s: HTTP %d", name, got.status)
		}
		if first == "" {
			first, firstName = text, name
		} else if text != first {
			t.Errorf("%s:\n%s\n%s:\n%s", firstName, first, name, text)
		}
	}
	if got := g.send("GET", "/", withChecksum(good["keyPrefix"]+secretOf(good["key"])), ""); got.status != 200 {
		t.Errorf("this test makes no checksums that are right: HTTP %d", got.status)
	}
}

// mistyped changes one character of a token.
func mistyped(token string) string {
	at := len(token) / 2
	other := "x"
	if token[at] == 'x' {
		other = "y"
	}
	return token[:at] + other + token[at+1:]
}

// withChecksum completes a token.
func withChecksum(text string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	rest, base, digit := big.NewInt(int64(crc32.ChecksumIEEE([]byte(text)))), big.NewInt(62), new(big.Int)
	sum := make([]byte, 6)
	for i := range sum {
		rest.DivMod(rest, base, digit)
		sum[5-i] = digits[digit.Int64()]
	}
	return text + string(sum)
}
