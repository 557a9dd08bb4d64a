package caddymodule_test

import (
	"context"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// key is a key that a test has issued.
type key struct{ ID, Token string }

func (k key) header() string { return "Authorization: Bearer " + k.Token }

const (
	reader = `"userId":"alice"`
	writer = `"userId":"alice","scope":"read-write"`
)

// issue makes a key of the organization acme as the operator. fields are members
// of the JSON body.
func (g *gateway) issue(fields string) key {
	g.Helper()
	return g.issueFor("acme", fields)
}

func (g *gateway) issueFor(organization, fields string) key {
	g.Helper()
	a := g.operate("POST", "/api_keys/organizations/"+organization+"/keys", `{"name":"test",`+fields+`}`, "Content-Type: application/json")
	if a.Status != 200 {
		g.Fatalf("issuing a key: %d %s", a.Status, a.Text)
	}
	return key{a.text("id"), a.text("key")}
}

// issueInProcess makes a read key of the configuration that is in force.
func issueInProcess(t testing.TB) key {
	t.Helper()
	issued, err := running(t).Issue(context.Background(), apikey.Operator("acme"), apikey.Issue{Name: "test", UserID: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	return key{issued.Key.ID.String(), issued.Token}
}

func (g *gateway) issueExpired() key {
	g.Helper()
	k := g.issue(fmt.Sprintf(`%s,"expiresAt":%q`, reader, time.Now().Add(50*time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z")))
	g.await("the key to expire", func() bool { return g.send("GET", "/", "", k.header()).Status == 401 })
	g.upstream.take()
	return k
}

func (g *gateway) issueRevoked() key {
	g.Helper()
	k := g.issue(reader)
	g.send("GET", "/", "", k.header())
	g.revoke(k)
	g.upstream.take()
	return k
}

func (g *gateway) revoke(k key) {
	g.Helper()
	if a := g.operate("DELETE", "/api_keys/keys/"+k.ID, ""); a.Status != 200 {
		g.Fatalf("revoking a key: %d %s", a.Status, a.Text)
	}
}

// lookUp shows a key to the operator.
func (g *gateway) lookUp(k key) answer {
	g.Helper()
	a := g.operate("GET", "/api_keys/keys/"+k.ID, "")
	if a.Status != 200 {
		g.Fatalf("looking up a key: %d %s", a.Status, a.Text)
	}
	return a
}

// uses returns how often a key was accepted.
func uses(t testing.TB, k key) uint64 {
	t.Helper()
	id, _ := apikey.ParseID(k.ID)
	found, err := running(t).Get(context.Background(), apikey.Operator(""), id)
	if err != nil {
		t.Fatal(err)
	}
	return found.Usage.Count
}

// forge makes a token with a right checksum.
func forge(id, secret string) string {
	body := "ak_" + id + secret
	return body + base62(crc32.ChecksumIEEE([]byte(body)))
}

func base62(n uint32) string {
	var digits [6]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[n%62]
		n /= 62
	}
	return string(digits[:])
}

// The parts of a token.
func idOf(token string) string     { return token[3 : 3+22] }
func secretOf(token string) string { return token[3+22 : 3+22+43] }

// swap replaces a character of a text by another one.
func swap(text string, at int) string {
	other := byte('0')
	if text[at] == other {
		other = '1'
	}
	return text[:at] + string(other) + text[at+1:]
}
