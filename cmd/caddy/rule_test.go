package main_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What each scanner is told, found in the text of its rule.
var ruleExpressions = map[string]*regexp.Regexp{
	"gitleaks":   regexp.MustCompile(`(?m)^regex = '''(.*)'''$`),
	"trufflehog": regexp.MustCompile(`(?m)^ +key: '(.*)'$`),
	"github":     regexp.MustCompile(`(?m)^Secret format: +(.*)\nBefore secret: +(.*)\nAfter secret: +(.*)$`),
}

func TestScannerRulesFindEveryTokenAndNothingLess(t *testing.T) {
	g := startGateway(t, strings.Replace(plainSite, "api_keys {", "api_keys {\n\t\tprefix my_co", 1))
	token := g.issue(nil)["key"]
	old := "ak_" + strings.TrimPrefix(token, "my_co_")
	for format, expression := range ruleExpressions {
		rule, stderr, code := g.run(g.command("api-keys", "scanner-rule", "--format", format, "--prefix", "my_co", "--prefix", "ak"))
		parts := expression.FindStringSubmatch(rule)
		if code != 0 || parts == nil {
			t.Fatalf("%s: exit code %d, %s, %s", format, code, stderr, rule)
		}
		text := parts[1]
		if len(parts) == 4 {
			text = fmt.Sprintf("(?:%s)(?:%s)(?:%s)", parts[2], parts[1], parts[3])
		}
		finds := regexp.MustCompile(text).MatchString
		for _, in := range []string{token, old, "Authorization: Bearer " + token + "\n", `key="` + token + `",`, "?key=" + old + "&x=1"} {
			if !finds(in) {
				t.Errorf("%s does not find the token in %q", format, strings.ReplaceAll(in, token, "TOKEN"))
			}
		}
		for _, in := range []string{token[:len(token)-1], token + "0", token[1:], "x" + token, strings.Replace(token, "my_co", "other", 1), "my_co_", ""} {
			if finds(in) {
				t.Errorf("%s finds a token in %d characters that are none", format, len(in))
			}
		}
	}
	g.fails(1, "gitleaks, trufflehog or github", "scanner-rule", "--format", "yara")
	g.fails(1, "use letters, digits and inner underscores", "scanner-rule", "--format", "github", "--prefix", "a.b")
	if result, _ := g.must("scanner-rule", "--format", "github"); result["regex"] != `\bak_[0-9A-Za-z]{71}\b` {
		t.Errorf("%v", result)
	}
}
