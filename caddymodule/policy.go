package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

const (
	maxIndexSize = 1 << 26

	managedByKeys     = "keys"
	managedByOperator = "operator"
)

// readPolicy makes the policy of the configuration. Secrets go into it and
// nowhere else: the fields of the configuration are shown by the admin endpoint.
func (a *App) readPolicy() error {
	for name, n := range map[string]int{
		"per_key_metrics": a.PerKeyMetrics, "index_size": a.IndexSize, "max_keys_per_organization": a.MaxKeysPerOrganization,
	} {
		if n < 0 {
			return fmt.Errorf("%s is %d: it cannot be negative", name, n)
		}
	}
	if a.IndexSize > maxIndexSize {
		return fmt.Errorf("index_size is %d: it is a number of keys up to %d", a.IndexSize, maxIndexSize)
	}
	for name, d := range map[string]caddy.Duration{
		"max_ttl": a.MaxTTL, "default_ttl": a.DefaultTTL, "usage_resolution": a.UsageResolution, "retention": a.Retention,
	} {
		if d < 0 {
			return fmt.Errorf("%s is %s: it cannot be negative", name, time.Duration(d))
		}
	}
	switch a.Management {
	case "", managedByKeys, managedByOperator:
	default:
		return fmt.Errorf("management %q: use %s or %s", a.Management, managedByKeys, managedByOperator)
	}
	a.policy = apikey.Policy{
		Prefix: a.Prefix, RetiredPrefixes: a.RetiredPrefixes,
		MaxTTL: time.Duration(a.MaxTTL), DefaultTTL: time.Duration(a.DefaultTTL), MaxKeys: a.MaxKeysPerOrganization,
		Retention: time.Duration(a.Retention),
	}
	if a.Usage != "" {
		var ok bool
		if a.policy.Usage, ok = apikey.ParseUsageMode(a.Usage); !ok {
			return fmt.Errorf("usage %q: use full, time or off", a.Usage)
		}
	}
	for _, text := range a.Peppers {
		secret, err := secretOf("pepper", text)
		if err != nil {
			return err
		}
		a.policy.Peppers = append(a.policy.Peppers, secret)
	}
	for name, text := range a.ImportSecrets {
		secret, err := secretOf("import_secret "+name, text)
		if err != nil {
			return err
		}
		if a.policy.ForeignSecrets == nil {
			a.policy.ForeignSecrets = make(map[string][]byte)
		}
		a.policy.ForeignSecrets[name] = secret
	}
	return a.policy.Check()
}

// secretOf reads a secret that the configuration names. One that is missing or
// empty is an error: it must not be taken for "no secret".
func secretOf(name, text string) ([]byte, error) {
	secret, err := caddy.NewReplacer().ReplaceOrErr(text, true, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err) // names the placeholder, not its value
	}
	return []byte(secret), nil
}
