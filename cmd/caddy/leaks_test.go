package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReportedTokenIsRevokedForGood(t *testing.T) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&signer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "github.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGateway(t, strings.Replace(plainSite, "	api_keys\n", `	api_keys {
		leak_alerts {
			public_key test {file.`+file+`}
		}
	}
`, 1))
	leaked, other := g.issue(nil), g.issue(nil)
	body := `[{"token":"` + leaked["key"] + `","type":"example","url":"https://example.com/found/here","source":"commit"}]`
	report := func(signed string) int {
		digest := sha256.Sum256([]byte(signed))
		signature, err := ecdsa.SignASN1(rand.Reader, signer, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequest("POST", g.url+"/v1/api-keys/leaks/github", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{
			"Content-Type": {"application/json"}, "Github-Public-Key-Identifier": {"test"},
			"Github-Public-Key-Signature": {base64.StdEncoding.EncodeToString(signature)},
		}
		resp, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if status := report("another body"); status != 403 {
		t.Errorf("with a wrong signature: HTTP %d", status)
	}
	g.requireStatus(200, "GET", "/", leaked["key"])
	if status := report(body); status != 200 {
		t.Errorf("HTTP %d", status)
	}
	g.requireStatus(401, "GET", "/", leaked["key"])
	if got := g.look(leaked["id"]); got["revokedFor"] != "leaked" {
		t.Errorf("%v", got)
	}
	waitFor(t, "the audit log to tell", func() bool {
		for line := range strings.Lines(g.log()) {
			if strings.Contains(line, leaked["id"]) && strings.Contains(line, "api key revoked") {
				return strings.Contains(line, `"leaked"`) && strings.Contains(line, "https://example.com/found/here")
			}
		}
		return false
	})
	g.kill()
	g.start()
	g.requireStatus(401, "GET", "/", leaked["key"])
	g.requireStatus(200, "GET", "/", other["key"])
}
