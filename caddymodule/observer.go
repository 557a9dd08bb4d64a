package caddymodule

import (
	"context"
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

// observer also tells the configuration that made a change of it: in its log and
// through Caddy's events.
type observer struct{ app *App }

func (o observer) background() backgroundObserver {
	return backgroundObserver{o.app.metrics, o.app.driver}
}

// eventNames are the events of Caddy's events app for each kind of change.
var eventNames = map[apikey.ChangeKind]string{
	apikey.ChangeIssued:  "api_key_created",
	apikey.ChangeRevoked: "api_key_revoked",
}

// Changed implements apikey.Observer.
func (o observer) Changed(ctx context.Context, c apikey.Change) {
	o.background().Changed(ctx, c)
	fields := map[string]string{
		"api_key_id":      c.Key.ID.String(),
		"organization_id": c.Key.OrganizationID,
		"by":              c.By.ID(),
	}
	if !c.By.KeyID.IsZero() {
		fields["by_api_key_id"] = c.By.KeyID.String()
	}
	o.app.logger.Info("api key "+c.Kind.String(),
		zap.String("api_key_id", fields["api_key_id"]), zap.String("organization_id", fields["organization_id"]),
		zap.String("by", fields["by"]), zap.String("by_api_key_id", fields["by_api_key_id"]))

	data := make(map[string]any, len(fields))
	for name, value := range fields {
		data[name] = value
	}
	o.app.events.Emit(o.app.ctx, eventNames[c.Kind], data)
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
