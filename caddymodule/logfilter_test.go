package caddymodule_test

import (
	"errors"
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

func TestTokensAreNotInTheAccessLogThatIsFiltered(t *testing.T) {
	g := start(t, `
		servers {
			log_credentials
		}
		api_keys {
			prefix acme_live
			retired_prefixes ak
		}`, `
		log filtered {
			output file DIR/access
			format filter {
				request api_key
				resp_headers api_key
			}
		}
		api_keys
		reverse_proxy UPSTREAM`)
	k := g.issue(reader)
	token := k.Token
	requests := [][]string{
		{"/1?key=" + token}, {"/2/" + token + "/x"}, {"/3?a=b&key=" + token + "&c=d#" + token}, {"/4", "Referer: https://example.com/?key=" + token},
		{"/5", "X-Api-Key: something else that is secret"}, {"/6", "x-api-key: " + token}, {"/7", k.header()}, {"/8", "Cookie: key=" + token},
		{"/9?" + strings.ReplaceAll(token, "_", "%5F")}, {"/10?key=" + percentEncode(token)}, {"/11/x" + token}, {"/12/" + token + "x"}, {"/13/" + token + "_" + token},
		{"/14?key=%ZZ" + percentEncode(token)}, {"/15", "X-Other: a", "X-Other: " + token + " b"}, {"/16", "User-Agent: " + token}, {"/17", "Authorization: Basic " + token},
		{"/18?key=" + url.QueryEscape("\""+token+"\"")},
	}
	for _, r := range requests {
		path, _, _ := strings.Cut(r[0], "#")
		g.raw("GET " + path + " HTTP/1.1\nHost: x\n" + strings.Join(append(r[1:], ""), "\n") + "\n")
	}
	var text string
	g.await("the access log", func() bool {
		content, err := os.ReadFile(filepath.Join(g.dir, "access"))
		text = string(content)
		return err == nil && strings.Count(text, "\n") == len(requests)
	})
	for _, part := range []string{token, secretOf(token)[:20], secretOf(token)[20:], percentEncode(secretOf(token))[:30], "something else"} {
		if strings.Contains(text, part) {
			t.Errorf("the access log has %q:\n%s", part, text)
		}
	}
	for _, part := range []string{`"uri":"/1?key=acme_live_REDACTED"`, "/2/acme_live_REDACTED/x", "&c=d", `"User-Agent":["acme_live_REDACTED"]`, `"Authorization":["Bearer acme_live_REDACTED"]`, `["a","acme_live_REDACTED b"]`, k.ID} {
		if !strings.Contains(text, part) {
			t.Errorf("the access log lacks %s:\n%s", part, text)
		}
	}
}

// percentEncode writes every character of a text as a code.
func percentEncode(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[text[i]>>4])+string("0123456789abcdef"[text[i]&15])))
	}
	return b.String()
}

func TestTheLogFilterTakesOutTheHeadersThatItIsGiven(t *testing.T) {
	filter := &caddymodule.LogFilter{Headers: []string{"X-Secret"}}
	if err := filter.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	token := forge("0352LEivjpyT0uQI9pd2Xs", strings.Repeat("s", 43))
	object := zapcore.ObjectMarshalerFunc(func(enc zapcore.ObjectEncoder) error {
		enc.AddString("x-secret", "gone")
		enc.AddString("X-Api-Key", "stays")
		enc.AddInt("n", 1)
		enc.AddByteString("bytes", []byte(token))
		zap.Strings("X-SECRET", []string{"gone", "too"}).AddTo(enc)
		zap.Strings("others", []string{"a", token}).AddTo(enc)
		zap.Any("map", map[string]string{"k": token}).AddTo(enc)
		zap.Any("X-Secret", map[string]string{"k": "gone"}).AddTo(enc)
		zap.Any("plain", map[string]int{"k": 1}).AddTo(enc)
		zap.Array("maps", zapcore.ArrayMarshalerFunc(func(enc zapcore.ArrayEncoder) error {
			return errors.Join(enc.AppendReflected(map[string]string{"k": token}), enc.AppendReflected(map[string]int{"k": 1}))
		})).AddTo(enc)
		zap.Dict("inner", zap.String("X-Secret", "gone"), zap.String("text", "see "+token)).AddTo(enc)
		return nil
	})
	enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
	line, err := enc.EncodeEntry(zapcore.Entry{}, []zapcore.Field{
		filter.Filter(zap.Object("request", object)), filter.Filter(zap.String("uri", "/"+token)), filter.Filter(zap.Int("size", 7)),
		filter.Filter(zap.Strings("list", []string{token})),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"request":{"x-secret":"REDACTED","X-Api-Key":"stays","n":1,"bytes":"ak_REDACTED","X-SECRET":"REDACTED","others":["a","ak_REDACTED"],` +
		`"map":"{\"k\":\"ak_REDACTED\"}","X-Secret":"REDACTED","plain":{"k":1},"maps":["{\"k\":\"ak_REDACTED\"}",{"k":1}],` +
		`"inner":{"X-Secret":"REDACTED","text":"see ak_REDACTED"}},"uri":"/ak_REDACTED","size":7,"list":["ak_REDACTED"]}`
	if got := strings.TrimSpace(line.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// objectError is an error that can also be written as an object.
type objectError string

func (e objectError) Error() string { return string(e) }

func (e objectError) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("text", string(e))
	return nil
}

func TestTheLogFilterWritesAFieldAsWithoutIt(t *testing.T) {
	filter := new(caddymodule.LogFilter)
	if err := filter.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	for name, field := range map[string]zap.Field{
		"an error that is an object":            zap.Error(objectError("see TOKEN")),
		"an object that is an error":            zap.Object("o", objectError("see TOKEN")),
		"an object without a name":              zap.Inline(objectError("see TOKEN")),
		"a list of objects that are errors":     zap.Objects("l", []objectError{"see TOKEN"}),
		"a list of errors that are objects too": zap.Errors("l", []error{objectError("see TOKEN")}),
	} {
		t.Run(name, func(t *testing.T) {
			line := func(field zap.Field) string {
				text, err := zapcore.NewJSONEncoder(zapcore.EncoderConfig{}).EncodeEntry(zapcore.Entry{}, []zapcore.Field{field})
				if err != nil {
					t.Fatal(err)
				}
				return text.String()
			}
			if got, want := line(filter.Filter(field)), line(field); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestATokenWithoutItsChecksumIsOneToTheLog(t *testing.T) {
	filter := new(caddymodule.LogFilter)
	token := forge("0352LEivjpyT0uQI9pd2Xs", strings.Repeat("s", 43))
	for cut := range 7 {
		if got := filter.Filter(zap.String("uri", "/"+token[:len(token)-cut])).String; got != "/ak_REDACTED" {
			t.Errorf("without %d characters: %s", cut, got)
		}
	}
}
