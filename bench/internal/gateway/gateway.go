// Package gateway runs Caddy, with this plugin or without, from a Caddyfile that
// it writes, and acts as the operator on its admin endpoint.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/child"
)

// Config says what to run.
type Config struct {
	// Name tells the files of this gateway from those of others.
	Name string
	// Binary is a Caddy.
	Binary string
	// Dir takes the Caddyfile and the log.
	Dir string
	// Cores and Env are those of the process.
	Cores string
	Env   []string
	// Global stands among the global options of the Caddyfile.
	Global string
	// Log stands in the block of the default log.
	Log string
	// Site stands in the site block.
	Site string
	// Certificate and Key are files; with them the site speaks TLS too.
	Certificate, Key string
}

// Gateway is a Caddy that runs.
type Gateway struct {
	*child.Process
	// Address is where the site listens, Admin the admin endpoint, and Secure,
	// with a certificate, the same site over TLS: host and port.
	Address, Admin, Secure string
}

// startTimeout is how long a gateway may take until it answers.
const startTimeout = 30 * time.Second

// Start runs a gateway and waits until its site and its admin endpoint answer.
func Start(ctx context.Context, c Config) (*Gateway, error) {
	g, command, err := Prepare(c)
	if err != nil {
		return nil, err
	}
	if g.Process, err = child.Start(ctx, command); err != nil {
		return nil, err
	}
	if err := g.Await(g.Ready, startTimeout); err != nil {
		g.Kill()
		return nil, err
	}
	return g, nil
}

// Prepare chooses the addresses of a gateway and writes its Caddyfile. The
// command starts it.
func Prepare(c Config) (*Gateway, child.Command, error) {
	g := new(Gateway)
	for _, address := range []*string{&g.Address, &g.Admin, &g.Secure} {
		var err error
		if *address, err = child.FreeAddress(); err != nil {
			return nil, child.Command{}, err
		}
	}
	path := filepath.Join(c.Dir, c.Name+".caddyfile")
	if err := os.WriteFile(path, []byte(g.caddyfile(c)), 0o600); err != nil {
		return nil, child.Command{}, err
	}
	return g, child.Command{
		Args:  []string{c.Binary, "run", "--config", path, "--adapter", "caddyfile"},
		Cores: c.Cores, Env: c.Env, Log: filepath.Join(c.Dir, c.Name+".log"),
	}, nil
}

func (g *Gateway) caddyfile(c Config) string {
	var text strings.Builder
	fmt.Fprintf(&text, "{\n\tadmin %s\n\tpersist_config off\n\tauto_https off\n\tlog {\n\t\tlevel WARN\n\t%s}\n\tservers {\n\t\tprotocols h1 h2\n\t}\n%s}\n", g.Admin, indent(c.Log), indent(c.Global))
	fmt.Fprintf(&text, "http://%s {\n%s}\n", g.Address, indent(c.Site))
	if c.Certificate != "" {
		fmt.Fprintf(&text, "https://%s {\n\ttls %s %s\n%s}\n", g.Secure, c.Certificate, c.Key, indent(c.Site))
	} else {
		g.Secure = ""
	}
	return text.String()
}

// indent indents the lines of a text by a tab and ends each.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("\t" + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// Ready reports whether the site listens and, where there are keys, whether they
// can be looked up.
func (g *Gateway) Ready() bool {
	answer, err := http.Get("http://" + g.Admin + "/api_keys/ready")
	if err != nil {
		return false
	}
	answer.Body.Close()
	// A Caddy without the plugin does not know the path.
	return (answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusNotFound) && child.Listens(g.Address)
}

// Issued is what the operator, or a holder of a key, is told of a new key.
type Issued struct {
	ID    string `json:"id"`
	Token string `json:"key"`
}

// Issue makes a read-write key of a user, as the operator.
func (g *Gateway) Issue(organization, user string) (Issued, error) {
	body := fmt.Sprintf(`{"name":"bench","userId":%q,"scope":"read-write"}`, user)
	endpoint := "http://" + g.Admin + "/api_keys/organizations/" + url.PathEscape(organization) + "/keys"
	answer, err := http.Post(endpoint, "application/json", strings.NewReader(body))
	if err != nil {
		return Issued{}, err
	}
	defer answer.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(answer.Body); err != nil {
		return Issued{}, err
	}
	if answer.StatusCode != http.StatusOK {
		return Issued{}, fmt.Errorf("issuing a key as the operator: status %d", answer.StatusCode)
	}
	return ParseIssued(text.Bytes())
}

// ParseIssued reads the answer to POST /v1/api-keys.
func ParseIssued(answer []byte) (Issued, error) {
	var envelope struct {
		Data Issued `json:"data"`
	}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return Issued{}, fmt.Errorf("reading the answer to a create: %w", err)
	}
	if envelope.Data.ID == "" || envelope.Data.Token == "" {
		return Issued{}, fmt.Errorf("reading the answer to a create: it has no key")
	}
	return envelope.Data, nil
}
