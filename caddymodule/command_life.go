package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
	cmd := &cobra.Command{Use: "update <id>", Short: "Changes a key, at once", Args: cobra.MatchAll(cobra.ExactArgs(1), noTokens)}
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
			return ofKey(args[0], err)
		}
		return o.printKey(data)
	}
	return cmd
}

func (o *operator) rotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate <id> [--grace <duration>]",
		Short: "Replaces a key by a new one and prints its token, once",
		Args:  cobra.MatchAll(cobra.ExactArgs(1), noTokens),
	}
	grace := cmd.Flags().String("grace", "24h", "How much longer the old token is accepted: 24h, 7d, 0")
	end := cmd.Flags().String("expires-at", "", "When the new key ends (default: it lives as long as the old one)")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		body := map[string]string{"gracePeriod": *grace}
		if cmd.Flags().Changed("expires-at") {
			body["expiresAt"] = *end
		}
		return ofKey(args[0], o.mint(keyPath(args[0])+"/rotate", body, args[0]))
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
			if len(bytes.TrimSpace(token)) == 0 {
				return errors.New("there is no token on standard input: verify < file")
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
