package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
)

// authService starts the service that gateways without keys of their own ask. It
// runs on their core.
func (l *lab) authService(ctx context.Context, tokens credentials) (*child.Process, string, error) {
	address, err := child.FreeAddress()
	if err != nil {
		return nil, "", err
	}
	p, err := l.start(ctx, "authsvc", address, child.Command{Args: []string{l.authsvc, address, tokens.file}, Cores: l.gatewayCore})
	return p, address, err
}

// forwardAuth starts a stock Caddy that asks a service about each request.
func (l *lab) forwardAuth(ctx context.Context, service *child.Process, at string) (*target, error) {
	t, err := l.caddyTarget(ctx, gateway.Config{
		Name: "forward_auth", Binary: l.stock,
		Site: "forward_auth " + at + " {\n\turi /auth\n\tcopy_headers X-Key-Id\n}\n" + l.proxy(),
	})
	if err == nil {
		t.checks, t.processes = true, append(t.processes, service)
	}
	return t, err
}

const basicUser, basicPassword = "bench", "correct horse battery staple"

func (l *lab) basicCredentials() credentials {
	return credentials{file: filepath.Join(l.dir, "basic-auth"), scheme: "Basic", take: 1}
}

// basicAuth starts a stock Caddy with one user, whose password it hashes with
// bcrypt once and remembers then.
func (l *lab) basicAuth(ctx context.Context) (*target, error) {
	hash, err := exec.CommandContext(ctx, l.stock, "hash-password", "--algorithm", "bcrypt", "--plaintext", basicPassword).Output()
	if err != nil {
		return nil, fmt.Errorf("hashing a password: %w", err)
	}
	line := base64.StdEncoding.EncodeToString([]byte(basicUser + ":" + basicPassword))
	if err := writeLines(l.basicCredentials().file, []string{line}); err != nil {
		return nil, err
	}
	t, err := l.caddyTarget(ctx, gateway.Config{
		Name: "basic_auth", Binary: l.stock,
		Site: fmt.Sprintf("basic_auth bcrypt {\n\t%s %s\n}\n%s", basicUser, strings.TrimSpace(string(hash)), l.proxy()),
	})
	if err != nil {
		return nil, err
	}
	t.checks = true
	// The first request is hashed, for a second or so, and with it all that come
	// meanwhile.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.address+"/", nil)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(basicUser, basicPassword)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	return t, answer.Body.Close()
}

func (l *lab) signedCredentials() credentials {
	return credentials{file: filepath.Join(l.dir, "tokens-signed"), scheme: "Bearer", take: 10_000}
}

// caddySecurity starts a Caddy with caddy-security, which accepts JSON Web Tokens (RFC
// 7519) that are signed under one secret, and remembers those that it has seen.
func (l *lab) caddySecurity(ctx context.Context) (*target, error) {
	secret := rand.Text()
	if err := writeSigned(l.signedCredentials(), secret); err != nil {
		return nil, err
	}
	binary, err := child.Build(ctx, "bench/peers", l.dir)
	if err != nil {
		return nil, err
	}
	const policy = `security {
	authorization policy bench {
		crypto key verify %s
		set auth url /
		disable auth redirect
		validate bearer header
		allow roles bench/reader
	}
}
`
	t, err := l.caddyTarget(ctx, gateway.Config{
		Name: "caddy-security", Binary: binary,
		Global: fmt.Sprintf(policy, secret), Site: "route {\n\tauthorize with bench\n\t" + l.proxy() + "\n}\n",
	})
	if err == nil {
		t.checks = true
	}
	return t, err
}

// writeSigned writes tokens of as many users.
func writeSigned(to credentials, secret string) error {
	encode := base64.RawURLEncoding.EncodeToString
	header, expires := encode([]byte(`{"alg":"HS512","typ":"JWT"}`)), time.Now().Add(24*time.Hour).Unix()
	tokens := make([]string, to.take)
	for i := range tokens {
		signed := header + "." + encode(fmt.Appendf(nil, `{"sub":"user-%d","jti":%q,"roles":["bench/reader"],"exp":%d}`, i, rand.Text(), expires))
		mac := hmac.New(sha512.New, []byte(secret))
		mac.Write([]byte(signed))
		tokens[i] = signed + "." + encode(mac.Sum(nil))
	}
	return writeLines(to.file, tokens)
}
