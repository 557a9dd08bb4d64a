package apikey_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/storagetest"
)

func TestNamesAndDescriptionsMustNotDeceiveWhoReadsThem(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	token := r.issue(operator, apikey.Issue{}).Token
	const ok, bad = true, false
	for name, c := range map[string]struct {
		text              string
		name, description bool
	}{
		"plain":                           {"nightly build", ok, ok},
		"empty":                           {"", bad, ok},
		"a space":                         {" ", bad, ok},
		"spaces":                          {"   ", bad, ok},
		"no-break space":                  {"\u00a0", bad, ok},
		"ideographic space":               {"\u3000", bad, ok},
		"leading space":                   {" a", bad, ok},
		"trailing space":                  {"a ", bad, ok},
		"trailing no-break space":         {"a\u00a0", bad, ok},
		"tab":                             {"a\tb", bad, bad},
		"line break":                      {"a\nb", bad, bad},
		"carriage return":                 {"a\rb", bad, bad},
		"line separator":                  {"a\u2028b", bad, bad},
		"paragraph separator":             {"a\u2029b", bad, bad},
		"NUL":                             {"a\x00b", bad, bad},
		"escape sequence":                 {"\x1b[31mred", bad, bad},
		"DEL":                             {"a\x7fb", bad, bad},
		"C1 control":                      {"a\u0085b", bad, bad},
		"C1 escape":                       {"a\u009b31m", bad, bad},
		"right-to-left override":          {"a\u202eb", bad, bad},
		"left-to-right override":          {"a\u202db", bad, bad},
		"embedding":                       {"a\u202ab", bad, bad},
		"pop":                             {"a\u202cb", bad, bad},
		"isolate":                         {"a\u2066b", bad, bad},
		"first strong isolate":            {"a\u2068b", bad, bad},
		"pop isolate":                     {"a\u2069b", bad, bad},
		"right-to-left mark":              {"a\u200fb", bad, bad},
		"Arabic letter mark":              {"a\u061cb", bad, bad},
		"zero width space":                {"a\u200bb", bad, bad},
		"zero width space only":           {"\u200b", bad, bad},
		"word joiner":                     {"a\u2060b", bad, bad},
		"byte order mark":                 {"\ufeffa", bad, bad},
		"soft hyphen":                     {"a\u00adb", bad, bad},
		"tag characters":                  {"a\U000e0041\U000e007f", bad, bad},
		"language tag":                    {"\U000e0001", bad, bad},
		"interlinear annotation":          {"a\ufff9b", bad, bad},
		"joiners only":                    {"\u200d\u200c", bad, ok},
		"zero width non-joiner in a word": {"می\u200cخواهم", ok, ok},
		"combining marks only":            {"\u0301\u0302", bad, ok},
		"emoji":                           {"\U0001f511", ok, ok},
		"emoji of several":                {"\U0001f468\u200d\U0001f4bb", ok, ok},
		"emoji with a variation selector": {"❤\ufe0f", ok, ok},
		"Arabic":                          {"مفتاح", ok, ok},
		"Hebrew and Latin":                {"build מפתח", ok, ok},
		"Chinese":                         {"构建", ok, ok},
		"unassigned":                      {"a\u0378", ok, ok},
		"private use":                     {"a\ue000", ok, ok},
		"replacement character":           {"a\ufffd", ok, ok},
		"invalid UTF-8":                   {"a\xffb", bad, bad},
		"overlong":                        {"a\xc0\xafb", bad, bad},
		"surrogate in UTF-8":              {"a\xed\xa0\x80", bad, bad},
		"cut off":                         {"a\xe2\x82", bad, bad},
		"markup":                          {`"><img onerror=alert(1)>`, ok, ok},
		"shell":                           {"'; DROP TABLE $(id) `id` %s%n {{.}} ../../etc", ok, ok},
		"formula":                         {"=cmd|' /C calc'!A0", ok, ok},
		"128 characters":                  {strings.Repeat("a", 128), ok, ok},
		"129 characters":                  {strings.Repeat("a", 129), bad, ok},
		"128 characters of four bytes":    {strings.Repeat("\U0001f511", 128), ok, ok},
		"129 characters of four bytes":    {strings.Repeat("\U0001f511", 129), bad, ok},
		"1024 characters":                 {strings.Repeat("é", 1024), bad, ok},
		"1025 characters":                 {strings.Repeat("é", 1025), bad, bad},
		"a token":                         {token, bad, bad},
		"a token in a sentence":           {"my key is " + token + ".", bad, bad},
		"a mistyped token":                {flip(token, 70), bad, bad},
		"a token between letters":         {"x" + token + "x", bad, bad},
		"the public start of a token":     {token[:25], ok, ok},
	} {
		for field, allowed := range map[string]bool{"name": c.name, "description": c.description} {
			what := apikey.Issue{Name: "n", UserID: "u"}
			if field == "name" {
				what.Name = c.text
			} else {
				what.Description = c.text
			}
			made, err := r.Issue(ctx, operator, what)
			var refused *apikey.FieldError
			switch {
			case allowed && err != nil:
				t.Errorf("%s as a %s: %v", name, field, err)
			case allowed:
				if key := r.get(operator, made.Key.ID); key.Name != what.Name || key.Description != what.Description {
					t.Errorf("%s as a %s reads as %q, %q", name, field, key.Name, key.Description)
				}
			case !errors.As(err, &refused) || refused.Field != field || made.Token != "":
				t.Errorf("%s as a %s: %v, want an error about the field", name, field, err)
			case strings.Contains(err.Error(), token[25:40]):
				t.Errorf("%s: the error repeats the token: %v", name, err)
			}
		}
	}
}

// A token of a retired or of the new brand is a token of ours all the same.
func TestNamesMustNotHoldTokensOfAnyPrefixInForce(t *testing.T) {
	r := openRing(t, storagetest.NewMemory())
	old := r.issue(operator, apikey.Issue{}).Token
	renamed, err := r.With(apikey.Policy{Prefix: "brand", RetiredPrefixes: []string{"ak"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"retired": old, "current": "brand" + old[2:]} {
		var refused *apikey.FieldError
		if _, err := renamed.Issue(ctx, operator, apikey.Issue{Name: "n", Description: text, UserID: "u"}); !errors.As(err, &refused) || refused.Field != "description" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Of two that are wrong, the first is named, always.
	for range 20 {
		var refused *apikey.FieldError
		if _, err := r.Issue(ctx, operator, apikey.Issue{Name: old, Description: old, UserID: "u"}); !errors.As(err, &refused) || refused.Field != "name" {
			t.Fatalf("%v", err)
		}
	}
}
