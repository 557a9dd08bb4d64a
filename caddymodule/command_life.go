package caddymodule

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// updateFlags are the flags of update that become fields of the body.
var updateFlags = []struct{ flag, field, usage string }{
	{"name", "name", "What the key is for"},
	{"description", "description", "More about it; an empty one clears it"},
	{"scope", "scope", "read or read-write"},
	{"expires-at", "expiresAt", "When the key ends, as 2030-01-31T12:00:00Z, or never"},
}

func (o *operator) update() *cobra.Command {
	cmd := &cobra.Command{Use: "update <id>", Short: "Changes a key, at once", Args: cobra.ExactArgs(1)}
	for _, f := range updateFlags {
		cmd.Flags().String(f.flag, "", f.usage)
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		body := make(map[string]*string)
		for _, f := range updateFlags {
			if flag := cmd.Flags().Lookup(f.flag); flag.Changed {
				value := flag.Value.String()
				body[f.field] = &value
				if f.field == "expiresAt" && value == "never" {
					body[f.field] = nil
				}
			}
		}
		if len(body) == 0 {
			return errors.New("nothing to change: give --name, --description, --scope or --expires-at")
		}
		data, err := o.call(http.MethodPatch, keyPath(args[0]), body)
		if err != nil {
			return err
		}
		return o.printKey(data)
	}
	return cmd
}

func (o *operator) rotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate <id> [--grace <duration>]",
		Short: "Replaces a key by a new one and prints its token, once",
		Args:  cobra.ExactArgs(1),
	}
	grace := cmd.Flags().String("grace", "24h", "How much longer the old token is accepted: 24h, 7d, 0")
	end := cmd.Flags().String("expires-at", "", "When the new key ends (default: it lives as long as the old one)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		body := map[string]string{"gracePeriod": *grace}
		if cmd.Flags().Changed("expires-at") {
			body["expiresAt"] = *end
		}
		return o.mint(keyPath(args[0])+"/rotate", body)
	}
	return cmd
}

func (o *operator) verify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify < token",
		Short: "Tells what key a token on standard input belongs to",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
			if err != nil {
				return fmt.Errorf("reading the token from standard input: %w", err)
			}
			data, err := o.call(http.MethodPost, adminBase+"keys/verify", map[string]string{"key": strings.TrimSpace(string(token))})
			if err != nil {
				return err
			}
			return o.printKey(data)
		},
	}
}

func (o *operator) stats() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Tells how many keys there are, and how the index does",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			data, err := o.call(http.MethodGet, adminBase+"stats", nil)
			if err != nil {
				return err
			}
			if o.json {
				return o.printJSON(data)
			}
			return o.printFields(data)
		},
	}
}

func (o *operator) export() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [--with-hashes]",
		Short: "Writes all keys to standard output, a line of JSON for each",
		Args:  cobra.NoArgs,
	}
	hashes := cmd.Flags().Bool("with-hashes", false, "Also the digests of their secrets")
	cmd.RunE = func(*cobra.Command, []string) error {
		query := url.Values{}
		if *hashes {
			query.Set("hashes", "true")
		}
		resp, err := o.stream(adminBase + "export?" + query.Encode())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(o.out, resp.Body); err != nil {
			return fmt.Errorf("the export broke off: %w", err)
		}
		return nil
	}
	return cmd
}

// How much is sent in one call: lines, or bytes if they are long.
const (
	importPiece      = 1000
	importPieceBytes = 1 << 20
)

// imported is what became of the lines of an import, counted from 1.
type imported struct {
	Imported   int   `json:"imported"`
	Duplicates []int `json:"duplicates,omitempty"`
	Refused    []struct {
		Line    int    `json:"line"`
		Field   string `json:"field,omitempty"`
		Message string `json:"message"`
	} `json:"refused,omitempty"`
}

func (o *operator) importKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import [--dry-run] <file>",
		Short: "Takes over keys that were made elsewhere, from JSON lines",
		Long: `
Takes over keys by the hashes of their tokens, a line of JSON for each:

  {"hash":"<hex>","algorithm":"sha256","name":"legacy","organizationId":"acme","userId":"carol"}

algorithm is sha256, sha512 or hmac-sha256 (then "secret" names an import_secret
of the configuration); scope, expiresAt, description and serviceAccountId are as
for create. All lines are checked first: when one is bad, nothing is imported. A
key that is there already is reported and left as it is.`,
		Args: cobra.ExactArgs(1),
	}
	dry := cmd.Flags().Bool("dry-run", false, "Check the file and import nothing")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		result, err := o.importFile(args[0], true)
		if err == nil && len(result.Refused) == 0 && !*dry {
			result, err = o.importFile(args[0], false)
		}
		if err != nil {
			return err
		}
		if err := o.printImport(result, *dry); err != nil {
			return err
		}
		if len(result.Refused) > 0 {
			return fmt.Errorf("%s: %d lines cannot be imported, nothing was", args[0], len(result.Refused))
		}
		return nil
	}
	return cmd
}

// importFile sends a file in pieces, so that neither side holds much of it.
func (o *operator) importFile(name string, dry bool) (total imported, err error) {
	file, err := os.Open(name)
	if err != nil {
		return total, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return total, errors.Join(err, fmt.Errorf("%s is not a regular file, and it has to be read twice", name))
	}
	uri := adminBase + "import"
	doing := "importing"
	if dry {
		uri += "?dry_run=true"
		doing = "checking"
	}
	show := newProgress(doing, "lines")
	defer show.end()

	lines := bufio.NewReader(file)
	var piece strings.Builder
	before := 0
	for count, more := 0, true; more; {
		line, err := lines.ReadString('\n')
		if more = err == nil; err != nil && err != io.EOF {
			return total, fmt.Errorf("reading %s: %w", name, err)
		}
		if line != "" {
			piece.WriteString(line)
			count++
		}
		if more && count < importPiece && piece.Len() < importPieceBytes || count == 0 {
			continue
		}
		part, err := o.importPiece(uri, piece.String())
		if err != nil {
			return total, fmt.Errorf("%s, lines %d to %d: %w", name, before+1, before+count, err)
		}
		total.add(part, before)
		before += count
		show.at(before)
		piece.Reset()
		count = 0
	}
	return total, nil
}

func (t *imported) add(part imported, before int) {
	t.Imported += part.Imported
	for _, line := range part.Duplicates {
		t.Duplicates = append(t.Duplicates, before+line)
	}
	for _, refused := range part.Refused {
		refused.Line += before
		t.Refused = append(t.Refused, refused)
	}
}

func (o *operator) importPiece(uri, lines string) (part imported, err error) {
	data, err := o.send(http.MethodPost, uri, http.Header{"Content-Type": {"application/x-ndjson"}}, []byte(lines))
	if err == nil {
		err = json.Unmarshal(data, &part)
	}
	return part, err
}
