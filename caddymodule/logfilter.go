package caddymodule

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func init() { caddy.RegisterModule(new(LogFilter)) }

// LogFilter takes API keys out of a log field and all that is in it. Put it on
// `request`, where it finds what clients have written into URLs and headers:
//
//	log {
//		format filter {
//			request api_key
//		}
//	}
//
// In the global options it does so for the log of errors too. Caddy copies the
// request for its logs before any handler runs, so that a handler cannot do this.
type LogFilter struct {
	// Headers that are taken out whole, as those that carry keys of other
	// makes. Default: `X-Api-Key`.
	Headers []string `json:"headers,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*LogFilter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.encoders.filter.api_key", New: func() caddy.Module { return new(LogFilter) }}
}

// UnmarshalCaddyfile sets up the filter:
//
//	<field> api_key [<header...>]
func (f *LogFilter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	f.Headers = d.RemainingArgs()
	if d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Provision sets up the filter.
func (f *LogFilter) Provision(caddy.Context) error {
	if len(f.Headers) == 0 {
		f.Headers = []string{foreignKeyHeader}
	}
	return nil
}

// tokenShape is a token of any prefix, whatever it is glued to, with its checksum or
// without: anybody can compute that. What follows the prefix goes.
var tokenShape = regexp.MustCompile(`([0-9A-Za-z](?:_|%5[Ff]))[0-9A-Za-z]{65,}`)

// shortestToken is how long what matches is at the least. A proxy writes every
// request into its logger, and most of what is in one is shorter.
const shortestToken = len("k_") + 65

const redacted = "REDACTED"

// redact takes tokens out of a text. One that hides behind percent-encoding takes
// all of the text with it.
func redact(text string) string {
	if len(text) < shortestToken {
		return text
	}
	text = tokenShape.ReplaceAllString(text, "${1}"+redacted)
	if strings.Contains(text, "%") && tokenShape.MatchString(percentDecoded(text)) {
		return redacted
	}
	return text
}

var percentEncoded = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// percentDecoded decodes what can be decoded: a stray % elsewhere changes nothing.
func percentDecoded(text string) string {
	return percentEncoded.ReplaceAllStringFunc(text, func(code string) string {
		c, _ := strconv.ParseUint(code[1:], 16, 8)
		return string([]byte{byte(c)})
	})
}

// Filter implements logging.LogFieldFilter.
func (f *LogFilter) Filter(in zapcore.Field) zapcore.Field {
	// By how the field is written: an error may be an object, too, and zap wants
	// the error.
	switch in.Type {
	case zapcore.ObjectMarshalerType, zapcore.InlineMarshalerType:
		in.Interface = redactedObject{f, in.Interface.(zapcore.ObjectMarshaler)}
		return in
	case zapcore.ArrayMarshalerType:
		in.Interface = redactedArray{f, in.Interface.(zapcore.ArrayMarshaler)}
		return in
	}
	if text := textOfField(&in); redact(text) != text {
		return zap.String(in.Key, redact(text))
	}
	return in
}

// textOfField is the text that a field adds to a line, if it can hold a token.
func textOfField(in *zapcore.Field) (text string) {
	defer func() {
		_ = recover() // a nil of some type, of which zap makes text by itself
	}()
	switch in.Type {
	case zapcore.StringType:
		return in.String
	case zapcore.ByteStringType:
		return string(in.Interface.([]byte))
	case zapcore.ErrorType:
		return in.Interface.(error).Error()
	case zapcore.StringerType:
		return in.Interface.(fmt.Stringer).String()
	case zapcore.ReflectType:
		if text, err := json.Marshal(in.Interface); err == nil {
			return string(text)
		}
	}
	return ""
}

func (f *LogFilter) secret(name string) bool {
	return slices.ContainsFunc(f.Headers, func(header string) bool { return strings.EqualFold(header, name) })
}

type redactedObject struct {
	filter *LogFilter
	zapcore.ObjectMarshaler
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (o redactedObject) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	return o.ObjectMarshaler.MarshalLogObject(objectRedactor{enc, o.filter})
}

type redactedArray struct {
	filter *LogFilter
	zapcore.ArrayMarshaler
}

// MarshalLogArray implements zapcore.ArrayMarshaler.
func (a redactedArray) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	return a.ArrayMarshaler.MarshalLogArray(arrayRedactor{enc, a.filter})
}

// objectRedactor passes on what an object logs of itself, without tokens.
type objectRedactor struct {
	zapcore.ObjectEncoder
	filter *LogFilter
}

func (o objectRedactor) AddString(key, value string) {
	if o.filter.secret(key) {
		value = redacted
	}
	o.ObjectEncoder.AddString(key, redact(value))
}

func (o objectRedactor) AddByteString(key string, value []byte) { o.AddString(key, string(value)) }

func (o objectRedactor) AddObject(key string, value zapcore.ObjectMarshaler) error {
	return o.ObjectEncoder.AddObject(key, redactedObject{o.filter, value})
}

func (o objectRedactor) AddArray(key string, value zapcore.ArrayMarshaler) error {
	if o.filter.secret(key) {
		o.ObjectEncoder.AddString(key, redacted)
		return nil
	}
	return o.ObjectEncoder.AddArray(key, redactedArray{o.filter, value})
}

func (o objectRedactor) AddReflected(key string, value any) error {
	if o.filter.secret(key) {
		o.ObjectEncoder.AddString(key, redacted)
		return nil
	}
	o.filter.Filter(zap.Reflect(key, value)).AddTo(o.ObjectEncoder)
	return nil
}

type arrayRedactor struct {
	zapcore.ArrayEncoder
	filter *LogFilter
}

func (a arrayRedactor) AppendString(value string)     { a.ArrayEncoder.AppendString(redact(value)) }
func (a arrayRedactor) AppendByteString(value []byte) { a.AppendString(string(value)) }
func (a arrayRedactor) AppendObject(value zapcore.ObjectMarshaler) error {
	return a.ArrayEncoder.AppendObject(redactedObject{a.filter, value})
}

func (a arrayRedactor) AppendArray(value zapcore.ArrayMarshaler) error {
	return a.ArrayEncoder.AppendArray(redactedArray{a.filter, value})
}

func (a arrayRedactor) AppendReflected(value any) error {
	field := a.filter.Filter(zap.Reflect("", value))
	if field.Type == zapcore.StringType {
		a.ArrayEncoder.AppendString(field.String)
		return nil
	}
	return a.ArrayEncoder.AppendReflected(value)
}

// Interface guards
var (
	_ caddy.Provisioner      = (*LogFilter)(nil)
	_ caddyfile.Unmarshaler  = (*LogFilter)(nil)
	_ logging.LogFieldFilter = (*LogFilter)(nil)
)
