package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

func init() { caddy.RegisterModule(new(LogFormat)) }

// LogFormat writes log lines without API keys, whatever field they are in, and spends
// nothing on lines that are not written:
//
//	log {
//		format api_keys
//	}
//
// In the global options it makes every proxied request cheaper. Caddy's
// `reverse_proxy` adds each request to its logger before it knows whether there will
// be a line; other formats make text of it then, this one when the line is written.
// So a line tells of the request as it is by then.
type LogFormat struct {
	// The format that writes the lines. Default: as without this one, `console`
	// on a terminal and else `json`.
	WrappedRaw json.RawMessage `json:"wrap,omitempty" caddy:"namespace=caddy.logging.encoders inline_key=format"`

	// Headers that are taken out whole, as those that carry keys of other
	// makes. Default: `X-Api-Key`.
	Headers []string `json:"headers,omitempty"`

	zapcore.Encoder `json:"-"` // the wrapped one; has fields that needed no work
	filter          *LogFilter
	waiting         []zapcore.Field // for a line to be written
}

// CaddyModule returns the Caddy module information.
func (*LogFormat) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.encoders.api_keys", New: func() caddy.Module { return new(LogFormat) }}
}

// UnmarshalCaddyfile sets up the format:
//
//	api_keys {
//		wrap    <format...>
//		headers <name...>
//	}
func (f *LogFormat) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	return words{
		"wrap": func(d *caddyfile.Dispenser) error {
			if f.WrappedRaw != nil {
				return d.Err("wrap is given twice")
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			name := d.Val()
			wrapped, err := caddyfile.UnmarshalModule(d, "caddy.logging.encoders."+name)
			if err != nil {
				return err
			}
			f.WrappedRaw = caddyconfig.JSONModuleObject(wrapped, "format", name, nil)
			return nil
		},
		"headers": func(d *caddyfile.Dispenser) error {
			if f.Headers != nil {
				return d.Err("headers is given twice")
			}
			if f.Headers = d.RemainingArgs(); len(f.Headers) == 0 {
				return d.ArgErr()
			}
			return nil
		},
	}.parse(d)
}

// Provision sets up the format.
func (f *LogFormat) Provision(ctx caddy.Context) error {
	f.filter = &LogFilter{Headers: f.Headers}
	if err := f.filter.Provision(ctx); err != nil {
		return err
	}
	if f.WrappedRaw == nil {
		plain := new(logging.AppendEncoder) // of nothing: it knows when console is right
		f.Encoder = plain
		return plain.Provision(ctx)
	}
	wrapped, err := ctx.LoadModule(f, "WrappedRaw")
	if err != nil {
		return fmt.Errorf("loading the format to wrap: %w", err)
	}
	f.Encoder = wrapped.(zapcore.Encoder)
	return nil
}

// ConfigureDefaultFormat implements caddy.ConfiguresFormatterDefault.
func (f *LogFormat) ConfigureDefaultFormat(writer caddy.WriterOpener) error {
	if wrapped, ok := f.Encoder.(caddy.ConfiguresFormatterDefault); ok {
		return wrapped.ConfigureDefaultFormat(writer)
	}
	return nil
}

// AddObject implements zapcore.ObjectEncoder, as do the methods below. What takes
// work waits; the rest is handed on.
func (f *LogFormat) AddObject(key string, value zapcore.ObjectMarshaler) error {
	f.waiting = append(f.waiting, zap.Object(key, value))
	return nil
}

// AddArray is like AddObject.
func (f *LogFormat) AddArray(key string, value zapcore.ArrayMarshaler) error {
	f.waiting = append(f.waiting, zap.Array(key, value))
	return nil
}

// AddReflected is like AddObject.
func (f *LogFormat) AddReflected(key string, value any) error {
	f.waiting = append(f.waiting, zap.Reflect(key, value))
	return nil
}

// AddString hands a text on, without tokens.
func (f *LogFormat) AddString(key, value string) {
	f.filter.Filter(zap.String(key, value)).AddTo(f.Encoder)
}

// AddByteString is like AddString.
func (f *LogFormat) AddByteString(key string, value []byte) { f.AddString(key, string(value)) }

// OpenNamespace lets nothing wait: it would be taken for a part of the namespace.
func (f *LogFormat) OpenNamespace(key string) {
	for _, field := range f.waiting {
		f.filter.Filter(field).AddTo(f.Encoder)
	}
	f.waiting = nil
	f.Encoder.OpenNamespace(key)
}

// Clone implements zapcore.Encoder.
func (f *LogFormat) Clone() zapcore.Encoder {
	return &LogFormat{Encoder: f.Encoder.Clone(), filter: f.filter, waiting: slices.Clip(f.waiting)}
}

// EncodeEntry implements zapcore.Encoder.
func (f *LogFormat) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	entry.Message = redact(entry.Message)
	all := make([]zapcore.Field, 0, len(f.waiting)+len(fields))
	for _, some := range [][]zapcore.Field{f.waiting, fields} {
		for _, field := range some {
			all = append(all, f.filter.Filter(field))
		}
	}
	return f.Encoder.EncodeEntry(entry, all)
}

// Interface guards
var (
	_ caddy.Provisioner                = (*LogFormat)(nil)
	_ caddy.ConfiguresFormatterDefault = (*LogFormat)(nil)
	_ caddyfile.Unmarshaler            = (*LogFormat)(nil)
	_ zapcore.Encoder                  = (*LogFormat)(nil)
)
