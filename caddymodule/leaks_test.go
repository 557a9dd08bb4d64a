package caddymodule_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scanner reports leaks, as GitHub's secret scanning does, with a key of its own.
type scanner struct {
	*ecdsa.PrivateKey
	file string // of the public key
}

func newScanner(t testing.TB) scanner {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return scanner{key, writeKey(t, &key.PublicKey)}
}

func writeKey(t testing.TB, key any) (path string) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s scanner) headers(body string) []string {
	digest := sha256.Sum256([]byte(body))
	signature, _ := ecdsa.SignASN1(rand.Reader, s.PrivateKey, digest[:])
	return []string{asJSON, "Github-Public-Key-Identifier: one", "Github-Public-Key-Signature: " + base64.StdEncoding.EncodeToString(signature)}
}

// site returns the block of a site that takes its reports.
func (s scanner) site(more string) string {
	return `
	api_keys {
		leak_alerts {
			public_key one {file.` + s.file + `}
			` + more + `
		}
	}
	reverse_proxy UPSTREAM`
}

func alertOf(token, url string) string {
	return `[{"token":"` + token + `","type":"example_api_key","url":"` + url + `","source":"content"}]`
}

func TestReportedTokenIsRevokedAndToldOf(t *testing.T) {
	github := newScanner(t)
	g := start(t, recordEvents+`
		api_keys {
			management operator
		}`, github.site(""))
	const path = "/v1/api-keys/leaks/github"
	good, other := g.issue(writer), g.issue(reader)
	takeEvents()
	if a := g.send("GET", "/", "", good.header()); a.Status != 200 {
		t.Fatalf("%d", a.Status)
	}
	body := alertOf(good.Token, "https://bot:hunter2@github.com/acme/app/blob/main/.env?token=hunter2#L3")
	if a := g.send("POST", path, body, github.headers(body+" ")...); a.Status != 403 || a.reason() != "invalid_signature" || a.RequestID == "" {
		t.Errorf("with a wrong signature: %d %s", a.Status, a.Text)
	}
	for range 2 {
		a := g.send("POST", path, body, github.headers(body)...)
		hash := sha256.Sum256([]byte(good.Token))
		want := `[{"token_hash":"` + hex.EncodeToString(hash[:]) + `","token_type":"example_api_key","label":"true_positive"}]`
		if a.Status != 200 || a.Text != want {
			t.Errorf("%d %s, want %s", a.Status, a.Text, want)
		}
	}
	if a := g.send("GET", "/", "", good.header()); a.Status != 401 {
		t.Errorf("a leaked key: %d", a.Status)
	}
	if a := g.send("GET", "/", "", other.header()); a.Status != 200 {
		t.Errorf("another key: %d", a.Status)
	}
	if a := g.lookUp(good); a.text("revokedFor") != "leaked" || a.text("revokedAt") == "" {
		t.Errorf("%s", a.Text)
	}

	const foundAt = "https://github.com/acme/app/blob/main/.env#L3"
	seen := takeEvents()
	if len(seen) != 1 || seen[0].Name() != "api_key_revoked" || seen[0].Data["api_key_id"] != good.ID || seen[0].Data["cause"] != "leaked" ||
		seen[0].Data["found_at"] != foundAt || seen[0].Data["by"] != "operator" || seen[0].Data["client_ip"] != "127.0.0.1" {
		t.Errorf("events %v", seen)
	}
	told := 0
	for _, line := range g.logged() {
		if line["logger"] == "api_keys.audit" && line["cause"] == "leaked" {
			told++
			if line["msg"] != "api key revoked" || line["api_key_id"] != good.ID || line["found_at"] != foundAt || line["request_id"] == "" {
				t.Errorf("logged %v", line)
			}
		}
	}
	if told != 1 {
		t.Errorf("%d lines of audit", told)
	}

	// A URL that has a token is not repeated.
	for _, url := range []string{"https://example.com/?k=TOKEN", "https://example.com/TOKEN", "https://example.com/%61TOKEN#TOKEN", "https://TOKEN@example.com/"} {
		leaked, next := g.issue(reader), g.issue(reader)
		for _, token := range []string{leaked.Token, next.Token} {
			body := alertOf(leaked.Token, strings.ReplaceAll(url, "TOKEN", token))
			if a := g.send("POST", path, body, github.headers(body)...); a.Status != 200 {
				t.Errorf("%d %s", a.Status, a.Text)
			}
			body = alertOf(next.Token, strings.ReplaceAll(url, "TOKEN", leaked.Token))
			if a := g.send("POST", path, body, github.headers(body)...); a.Status != 200 {
				t.Errorf("%d %s", a.Status, a.Text)
			}
		}
		if a := g.send("GET", "/", "", leaked.header()); a.Status != 401 {
			t.Errorf("%s: %d", url, a.Status)
		}
		if text := fmt.Sprint(takeEvents(), g.logged()); strings.Contains(text, secretOf(leaked.Token)) || strings.Contains(text, secretOf(next.Token)) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: a secret was told", url)
		}
	}
}

// The example of GitHub's documentation, signed by GitHub, ends a key that was made
// elsewhere.
func TestPublishedAlertRevokesAnImportedKey(t *testing.T) {
	der, _ := base64.StdEncoding.DecodeString("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAdAjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==")
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, ``, `
	api_key_management {
		leak_alerts {
			path /leaks
			public_key old {file.`+newScanner(t).file+`}
			public_key bcb53661c06b4728e59d897fb6165d5c9cda0fd9cdf9d09ead458168deb7518c {file.`+writeKey(t, key)+`}
		}
	}
	api_key_auth
	reverse_proxy UPSTREAM`)
	hash := sha256.Sum256([]byte("some_token"))
	line := `{"hash":"` + hex.EncodeToString(hash[:]) + `","algorithm":"sha256","name":"legacy","organizationId":"globex","userId":"carol"}`
	if a := g.operate("POST", "/api_keys/import", line, "Content-Type: application/x-ndjson"); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Text)
	}
	if a := g.send("GET", "/", "", "Authorization: Bearer some_token"); a.Status != 200 {
		t.Fatalf("before: %d", a.Status)
	}
	a := g.send("POST", "/leaks", `[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]`, asJSON,
		"GITHUB-PUBLIC-KEY-IDENTIFIER: bcb53661c06b4728e59d897fb6165d5c9cda0fd9cdf9d09ead458168deb7518c",
		"GITHUB-PUBLIC-KEY-SIGNATURE: MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==")
	if a.Status != 200 || !strings.Contains(a.Text, "true_positive") {
		t.Errorf("%d %s", a.Status, a.Text)
	}
	if a := g.send("GET", "/", "", "Authorization: Bearer some_token"); a.Status != 401 {
		t.Errorf("after: %d", a.Status)
	}
	// No other spelling of the path is it.
	for _, path := range []string{"/leaks/", "/leaks/x", "//leaks", "/%6ceaks", "/v1/api-keys/leaks/github"} {
		if a := g.send("POST", path, "[]", asJSON); a.Status != 401 {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
}

func TestReportsAreNotTakenUnlessConfigured(t *testing.T) {
	github := newScanner(t)
	g := start(t, ``, site)
	k := g.issue(writer)
	body := alertOf(k.Token, "")
	for header, want := range map[string]int{"X-Nothing: x": 401, k.header(): 404} {
		if a := g.send("POST", "/v1/api-keys/leaks/github", body, append(github.headers(body), header)...); a.Status != want {
			t.Errorf("%d %s, want %d", a.Status, a.Text, want)
		}
	}
	if a := g.send("GET", "/", "", k.header()); a.Status != 200 {
		t.Errorf("%d", a.Status)
	}
}

func TestConfigurationOfReportsThatCannotWorkIsRefused(t *testing.T) {
	g, github := start(t, ``, site), newScanner(t)
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	twice := filepath.Join(t.TempDir(), "two.pem")
	one, _ := os.ReadFile(github.file)
	os.WriteFile(twice, append(one, one...), 0o600)
	for more, want := range map[string]string{
		"path /v1/api-keys":                     "path",
		"path /":                                "path",
		"path leaks":                            "path",
		"path /leaks/":                          "path",
		"public_key two {env.NOT_SET_FOR_THIS}": "NOT_SET_FOR_THIS",
		"public_key two {file./nowhere/at/all.pem}":                   "two",
		"public_key two MFkwEwYH":                                     "two",
		"public_key two {file." + twice + "}":                         "two",
		"public_key two {file." + writeKey(t, &other.PublicKey) + "}": "P-256",
	} {
		if err := g.load(``, github.site(more)); err == nil || !strings.Contains(err.Error(), "leak_alerts: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", more, err)
		}
	}
	if err := g.load(``, "api_key_management {\nleak_alerts\n}"); err == nil || !strings.Contains(err.Error(), "public_key") {
		t.Errorf("without a key: %v", err)
	}
}
