package caddymodule

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// tokenBody is what follows the prefix of a token and its underscore.
const tokenBody = "[0-9A-Za-z]{71}"

// scannerRules are the rules by the scanner that reads them. Each is made of the
// prefixes, as one expression.
var scannerRules = map[string]func(prefixes []string, expression string) string{
	"gitleaks": func(prefixes []string, expression string) string {
		quoted := make([]string, len(prefixes))
		for i, p := range prefixes {
			quoted[i] = fmt.Sprintf("%q", strings.ToLower(p)+"_")
		}
		return fmt.Sprintf(`[[rules]]
id = "caddy-api-key"
description = "API key of a Caddy gateway"
regex = '''\b(%s)\b'''
keywords = [%s]
`, expression, strings.Join(quoted, ", "))
	},
	"trufflehog": func(prefixes []string, expression string) string {
		var keywords strings.Builder
		for _, p := range prefixes {
			fmt.Fprintf(&keywords, "\n      - %s_", p)
		}
		return fmt.Sprintf(`detectors:
  - name: caddy-api-key
    keywords:%s
    regex:
      key: '\b(%s)\b'
`, keywords.String(), expression)
	},
	"github": func(_ []string, expression string) string {
		// The expression of the secret is put between the other two.
		return fmt.Sprintf(`Pattern name:   Caddy API key
Secret format:  %s
Before secret:  \A|[^0-9A-Za-z_]
After secret:   \z|[^0-9A-Za-z_]
`, expression)
	},
}

func (o *operator) scannerRule() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scanner-rule --format gitleaks|trufflehog|github [--prefix <prefix>]...",
		Short: "Prints a rule by which a secret scanner finds tokens",
		Long: `
Prints a rule by which a secret scanner finds tokens of this gateway: for the
configuration of gitleaks or trufflehog, or what GitHub asks for when a custom pattern
is made. Name every prefix that the configuration has, retired ones too.

The last six characters of a token are a checksum, which tells tokens from other text.
An expression cannot compute it: what was found can be asked of verify.`,
		Args: cobra.NoArgs,
	}
	format := cmd.Flags().String("format", "", "gitleaks, trufflehog or github")
	prefixes := cmd.Flags().StringArray("prefix", []string{apikey.DefaultPrefix}, "The start of tokens, before their underscore")
	cmd.MarkFlagRequired("format")
	cmd.RunE = func(*cobra.Command, []string) error {
		rule, ok := scannerRules[*format]
		if !ok {
			return fmt.Errorf("there is no format %q: name gitleaks, trufflehog or github", *format)
		}
		quoted := make([]string, len(*prefixes))
		for i, p := range *prefixes {
			if err := apikey.CheckPrefix(p); err != nil {
				return err
			}
			quoted[i] = regexp.QuoteMeta(p)
		}
		start := quoted[0]
		if len(quoted) > 1 {
			start = "(?:" + strings.Join(quoted, "|") + ")"
		}
		text := rule(*prefixes, start+"_"+tokenBody)
		if !o.json {
			_, err := fmt.Fprint(o.out, text)
			return err
		}
		data, err := json.Marshal(map[string]string{"format": *format, "regex": `\b` + start + "_" + tokenBody + `\b`, "rule": text})
		if err != nil {
			return err
		}
		return o.printJSON(data)
	}
	return cmd
}
