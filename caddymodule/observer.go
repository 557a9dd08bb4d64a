package caddymodule

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/metrics"
)

// backgroundObserver counts what a Keyring does whatever the configuration. Its
// log lines go to the log of the configuration that is in force by then.
type backgroundObserver struct {
	metrics *metrics.Metrics
	driver  string
}

// Changed implements apikey.Observer.
func (o backgroundObserver) Changed(_ context.Context, c apikey.Change) { o.metrics.Changed(c) }

// StoreOperation implements apikey.Observer.
func (o backgroundObserver) StoreOperation(operation string, took time.Duration, err error) {
	o.metrics.StoreOperation(o.driver, operation, took, err)
}

// UsageFlushed implements apikey.Observer.
func (o backgroundObserver) UsageFlushed(keys int, took time.Duration, err error) {
	o.metrics.UsageFlushed(took)
	if err != nil {
		caddy.Log().Named(appName).Error("usage of keys could not be written; it is kept and tried again", zap.Error(err))
	}
}

// UsageDropped implements apikey.Observer.
func (o backgroundObserver) UsageDropped(uses int) {
	o.metrics.UsageDropped(uses)
	caddy.Log().Named(appName).Error("uses of keys were not recorded: the key store has taken none for too long", zap.Int("uses", uses))
}

// ClientChanged implements apikey.Observer: a line in the audit log and an event of
// the configuration that is in force.
func (o backgroundObserver) ClientChanged(_ context.Context, c apikey.ClientChange) {
	var changed []string
	if c.Network {
		changed = append(changed, "network")
	}
	if c.UserAgent {
		changed = append(changed, "user_agent")
	}
	data := map[string]any{"api_key_id": c.KeyID.String(), "changed": strings.Join(changed, " ")}
	for name, value := range map[string]string{
		"organization_id": c.OrganizationID, "client_ip": textOf(c.After.LastUsedIP), "user_agent": redact(c.After.LastUsedUserAgent),
		"previous_client_ip": textOf(c.Before.LastUsedIP), "previous_user_agent": redact(c.Before.LastUsedUserAgent),
	} {
		if value != "" {
			data[name] = value
		}
	}
	app, _ := activeApp()
	tell(app, auditMoved, "api_key_client_changed", data)
}

// ClientChangesUntold implements apikey.Observer.
func (o backgroundObserver) ClientChangesUntold(changes int) {
	caddy.Log().Named(appName).Warn("keys came from another network or with another user agent more often than is told of", zap.Int("changes", changes))
}

func textOf(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// tell writes a line of the audit log and emits an event that says the same. Without
// a configuration there is Caddy's own log.
func tell(app *App, message, event string, data map[string]any) {
	logger := caddy.Log().Named(appName)
	if app != nil {
		logger = app.logger
	}
	fields := make([]zap.Field, 0, len(data))
	for _, name := range slices.Sorted(maps.Keys(data)) {
		fields = append(fields, zap.Any(name, data[name]))
	}
	logger.Named(auditLogger).Info(message, fields...)
	if app != nil && app.events.ShouldEmit(event) {
		app.events.Emit(app.ctx, event, data)
	}
}

// observer also tells the configuration that made a change of it: in its log and
// through Caddy's events.
type observer struct{ app *App }

func (o observer) background() backgroundObserver {
	return backgroundObserver{o.app.metrics, o.app.driver}
}

// eventNames are the events of Caddy's events app for each kind of change.
var eventNames = map[apikey.ChangeKind]string{
	apikey.ChangeIssued:   "api_key_created",
	apikey.ChangeUpdated:  "api_key_updated",
	apikey.ChangeRotated:  "api_key_rotated",
	apikey.ChangeRevoked:  "api_key_revoked",
	apikey.ChangeImported: "api_key_imported",
}

// Changed implements apikey.Observer: a line in the audit log and an event, which
// say the same.
func (o observer) Changed(ctx context.Context, c apikey.Change) {
	o.background().Changed(ctx, c)
	data := map[string]any{
		"api_key_id":      c.Key.ID.String(),
		"organization_id": c.Key.OrganizationID,
		"by":              c.By.ID(),
		"scope":           c.Key.Scope.String(),
	}
	if !c.Key.ExpiresAt.IsZero() {
		data["expires_at"] = c.Key.ExpiresAt.UTC().Format("2006-01-02T15:04:05.999Z07:00")
	}
	for name, value := range map[string]string{
		"by_api_key_id": c.By.KeyID.String(), "replaced_by": c.Successor.String(), "cause": c.Key.RevokedFor,
		"client_ip": c.By.Address, "request_id": c.By.RequestID, "found_at": redact(c.FoundAt),
	} {
		if value != "" {
			data[name] = value
		}
	}
	app := o.app
	if app.ctx.Err() != nil { // its log is closed, and its events go nowhere
		app, _ = activeApp()
	}
	tell(app, auditMessage+c.Kind.String(), eventNames[c.Kind], data)
}

// StoreOperation implements apikey.Observer.
func (o observer) StoreOperation(operation string, took time.Duration, err error) {
	o.background().StoreOperation(operation, took, err)
}

// UsageFlushed implements apikey.Observer.
func (o observer) UsageFlushed(keys int, took time.Duration, err error) {
	o.background().UsageFlushed(keys, took, err)
}

// UsageDropped implements apikey.Observer.
func (o observer) UsageDropped(uses int) { o.background().UsageDropped(uses) }

// ClientChanged implements apikey.Observer.
func (o observer) ClientChanged(ctx context.Context, c apikey.ClientChange) {
	o.background().ClientChanged(ctx, c)
}

// ClientChangesUntold implements apikey.Observer.
func (o observer) ClientChangesUntold(changes int) { o.background().ClientChangesUntold(changes) }
