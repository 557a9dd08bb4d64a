package caddymodule

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-apikeys/caddy-apikeys/management"
)

// LeakAlerts takes the reports of GitHub's secret scanning about tokens that it
// found in public, and revokes their keys, whatever their organization. A report
// needs no credential but a signature. Nothing is fetched from GitHub: when it
// changes its key, add the new one and reload.
type LeakAlerts struct {
	// The path that reports come to. It is compared exactly. Default:
	// `/leaks/github` below the path of management.
	Path string `json:"path,omitempty"`

	// The public keys that reports may be signed with, by the identifier under
	// which https://api.github.com/meta/public_keys/secret_scanning has them: in
	// PEM, or as a placeholder such as `{file./etc/caddy/github.pem}`. At least
	// one.
	PublicKeys map[string]string `json:"public_keys"`

	signers management.Signers
}

// provision sets up the reports that come to a mount at a path.
func (l *LeakAlerts) provision(mount string) error {
	if l.Path == "" {
		l.Path = mount + "/leaks/github"
	}
	if !isPlainPath(l.Path) || l.Path == mount {
		return errors.New("leak_alerts: path: give an absolute path of its own such as " + defaultPath + "/leaks/github, without a slash at its end")
	}
	if len(l.PublicKeys) == 0 {
		return errors.New("leak_alerts: name at least one public_key, as GitHub publishes them")
	}
	l.signers = make(management.Signers)
	for name, text := range l.PublicKeys {
		key, err := publicKeyOf(name, text)
		if err != nil {
			return fmt.Errorf("leak_alerts: %w", err)
		}
		l.signers[name] = key
	}
	return nil
}

// publicKeyOf reads a public key that the configuration names.
func publicKeyOf(name, text string) (*ecdsa.PublicKey, error) {
	encoded, err := secretOf("public_key "+name, text)
	if err != nil {
		return nil, err
	}
	if block, rest := pem.Decode(encoded); block != nil && len(bytes.TrimSpace(rest)) == 0 {
		parsed, _ := x509.ParsePKIXPublicKey(block.Bytes)
		if key, ok := parsed.(*ecdsa.PublicKey); ok && key.Curve == elliptic.P256() {
			return key, nil
		}
	}
	return nil, fmt.Errorf("public_key %s: give one ECDSA key on the curve P-256 in PEM (-----BEGIN PUBLIC KEY-----)", name)
}

// serve answers a report. It returns false when the request is for another path.
func (l *LeakAlerts) serve(w http.ResponseWriter, r *http.Request, handler *management.Handler) bool {
	if l == nil || r.URL.Path != l.Path || r.URL.RawPath != "" {
		return false
	}
	handler.ServeLeaks(w, r, l.signers, clientIP(r), requestID(r))
	return true
}

// leakAlerts reads
//
//	leak_alerts {
//		path       <path>
//		public_key <identifier> <key>
//	}
//
// of which public_key may be given several times.
func leakAlerts(into **LeakAlerts) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *into != nil {
			return d.Err("leak_alerts is given twice")
		}
		if d.NextArg() {
			return d.ArgErr()
		}
		*into = new(LeakAlerts)
		return words{"path": one(&(*into).Path), "public_key": pair(&(*into).PublicKeys)}.parse(d)
	}
}
