package caddymodule_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-apikeys/caddy-apikeys/caddymodule"
)

// formatted returns a logger that writes lines in the format, from level on, and
// what it has written.
func formatted(t *testing.T, level zapcore.Level) (*zap.Logger, *strings.Builder) {
	t.Helper()
	format := &caddymodule.LogFormat{WrappedRaw: json.RawMessage(`{"format": "json", "time_key": ""}`)}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := format.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	lines := new(strings.Builder)
	return zap.New(zapcore.NewCore(format, zapcore.AddSync(lines), level)), lines
}

// counted is an object that counts how often it was asked what it is.
type counted struct{ asked int }

func (c *counted) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	c.asked++
	enc.AddInt("n", 1)
	return nil
}

func TestFormatSpendsNothingOnALineThatIsNotWritten(t *testing.T) {
	logger, lines := formatted(t, zapcore.WarnLevel)
	object := new(counted)
	of := logger.With(zap.Object("request", object))
	of.Debug("nobody reads this")
	if object.asked > 0 || lines.Len() > 0 {
		t.Errorf("an object was asked %d times for no line: %s", object.asked, lines)
	}
	of.Warn("but this")
	of.Warn("and this")
	if object.asked != 2 || strings.Count(lines.String(), `"request":{"n":1}`) != 2 {
		t.Errorf("an object was asked %d times for two lines: %s", object.asked, lines)
	}
}

func TestFormatWritesWhatTheFormatItWrapsWouldWrite(t *testing.T) {
	logger, lines := formatted(t, zapcore.DebugLevel)
	var plain strings.Builder
	reference := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", EncodeLevel: zapcore.LowercaseLevelEncoder, NameKey: "logger"}), zapcore.AddSync(&plain), zapcore.DebugLevel))
	for _, l := range []*zap.Logger{logger, reference} {
		object := zap.Object("o", new(counted))
		with := l.Named("n").With(object, zap.Strings("s", []string{"a", "b"}), zap.Reflect("r", map[string]int{"x": 1}))
		with.Info("objects", zap.Int("i", 7))
		with.With(zap.Namespace("inner"), zap.Object("p", new(counted))).Warn("in a namespace", zap.Bool("b", true))
		left, right := with.With(zap.Object("left", new(counted))), with.With(zap.Object("right", new(counted)))
		left.Error("one way")
		right.Error("another", zap.Error(errors.New("e")))
		l.Info("nothing")
	}
	// What waits comes after what did not, so that the order may differ.
	if got, want := sorted(t, lines.String()), sorted(t, plain.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// sorted returns lines of JSON with the fields of each in order.
func sorted(t *testing.T, lines string) (all string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		delete(fields, "ts")
		text, _ := json.Marshal(fields)
		all += string(text) + "\n"
	}
	return all
}

func TestFormatWritesNoToken(t *testing.T) {
	token := forge("0352LEivjpyT0uQI9pd2Xs", strings.Repeat("s", 43))
	failed := &url.Error{Op: "Get", URL: "http://x/?key=" + token, Err: errors.New("refused")}
	var nothing *url.Error
	for name, add := range map[string]zapcore.Field{
		"a text":               zap.String("f", token),
		"bytes":                zap.ByteString("f", []byte(token)),
		"an error":             zap.Error(failed),
		"something that tells": zap.Stringer("f", &url.URL{Path: "/" + token}),
		"texts":                zap.Strings("f", []string{"a", token}),
		"an object":            zap.Dict("f", zap.String("inner", token), zap.Strings("X-Api-Key", []string{"other"})),
		"any value":            zap.Reflect("f", map[string][]string{"Referer": {token}}),
		"an error of none":     zap.NamedError("f", nothing),
	} {
		t.Run(name, func(t *testing.T) {
			logger, lines := formatted(t, zapcore.DebugLevel)
			logger.Info("in the line", add)
			logger.With(add).Info("before the line")
			logger.With(zap.Namespace("n"), add).Info("in a namespace")
			logger.With(add, zap.Namespace("n")).Info("before a namespace")
			logger.Info("in the message " + token)
			if text := lines.String(); strings.Contains(text, secretOf(token)) || strings.Contains(text, "other") || strings.Count(text, "\n") != 5 {
				t.Errorf("the log is\n%s", text)
			}
		})
	}
}

func TestFormatTakesTokensOutOfTheLogOfErrors(t *testing.T) {
	g := start(t, `
		log everything {
			output file DIR/everything
			format api_keys
		}`, `
		log
		api_keys
		reverse_proxy 127.0.0.1:1`)
	k := g.issue(reader)
	g.raw("GET /?key=" + k.Token + " HTTP/1.1\nHost: x\nReferer: https://example.com/" + k.Token + "\n" + k.header() + "\n\n")
	var text string
	g.await("the line of the error, and of the access", func() bool {
		content, err := os.ReadFile(filepath.Join(g.dir, "everything"))
		text = string(content)
		return err == nil && strings.Contains(text, `"logger":"http.log.error"`) && strings.Contains(text, `"logger":"http.log.access`)
	})
	if strings.Contains(text, secretOf(k.Token)[:20]) {
		t.Errorf("the log has a token:\n%s", text)
	}
	if want := fmt.Sprintf(`"uri":"/?key=%s"`, "ak_REDACTED"); !strings.Contains(text, want) {
		t.Errorf("the log lacks %s:\n%s", want, text)
	}
}
