package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "api-keys",
		Short: "Issues, lists and revokes API keys of the running server",
		Long: `
Manages the API keys of a running Caddy through its admin endpoint. Only restore,
compact and check with a file open a store themselves, one that no server uses.

Tables are for people; with --json the output is for programs. A token is written
to standard output once, when its key is made, and cannot be shown again.

Exit codes: 0, it was done; 1, it was not, for the reason on standard error; 4, check
has found faults; 5, there is no such key.`,
		CobraFunc: apiKeysCommand,
	})
}

func apiKeysCommand(cmd *cobra.Command) {
	o := new(operator)
	cmd.PersistentFlags().StringVar(&o.address, "address", "", "The address of the admin endpoint: host:port, or a unix socket as unix//path (default: Caddy's)")
	cmd.PersistentFlags().BoolVar(&o.json, "json", false, "Print JSON")
	// Without these, a mistyped command shows the help and passes for a success.
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(*cobra.Command, []string) error { return cmd.Help() }
	cmd.SilenceUsage = true // a failure is one sentence
	cmd.AddCommand(o.create(), o.list(), o.get(), o.update(), o.revoke(), o.rotate(), o.verify(), o.importKeys(), o.export(), o.stats(),
		o.backup(), o.restore(), o.check(), o.compact(), o.scannerRule())
	for _, sub := range cmd.Commands() {
		sub.SilenceUsage = true
		sub.RunE = withExitCode(sub.RunE)
		sub.PreRunE = func(*cobra.Command, []string) error {
			o.out = sub.OutOrStdout()
			if f := sub.Flags().Lookup("organization"); f != nil && f.Changed && f.Value.String() == "" {
				return errors.New("--organization is empty: name an organization")
			}
			return nil
		}
	}
}

// bodyFlags are the flags of create that become fields of the body.
var bodyFlags = []struct{ flag, field, usage string }{
	{"user", "userId", "The user who owns the key"},
	{"service-account", "serviceAccountId", "The service account that owns the key, instead of a user"},
	{"name", "name", "What the key is for"},
	{"description", "description", "More about it"},
	{"scope", "scope", "read or read-write (default: read)"},
	{"expires-at", "expiresAt", "When the key ends, as 2030-01-31T12:00:00Z (default: never)"},
}

func (o *operator) create() *cobra.Command {
	var organization string
	cmd := &cobra.Command{
		Use:   "create --organization <id> (--user <id> | --service-account <id>) --name <name>",
		Short: "Issues a key and prints its token, once",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&organization, "organization", "", "The organization that the key belongs to")
	for _, f := range bodyFlags {
		cmd.Flags().String(f.flag, "", f.usage)
	}
	cmd.MarkFlagRequired("organization")
	cmd.MarkFlagRequired("name")
	cmd.RunE = func(*cobra.Command, []string) error {
		body := make(map[string]string)
		for _, f := range bodyFlags {
			// An empty value too: --expires-at "$UNSET" must not make a key
			// that never ends.
			if flag := cmd.Flags().Lookup(f.flag); flag.Changed {
				body[f.field] = flag.Value.String()
			}
		}
		return o.mint(organizationPath(organization), body, "")
	}
	return cmd
}

// filterFlags are the flags of list that become parameters of the query.
var filterFlags = []struct{ flag, parameter, usage string }{
	{"status", "status", "Only keys that are active, expired or revoked"},
	{"scope", "scope", "Only keys of this scope"},
	{"user", "userId", "Only keys of this user"},
	{"service-account", "serviceAccountId", "Only keys of this service account"},
	{"unused-since", "unusedSince", "Only keys that were not used since, as 2030-01-31T12:00:00Z"},
}

func (o *operator) list() *cobra.Command {
	var organization string
	cmd := &cobra.Command{Use: "list --organization <id>", Short: "Lists the keys of an organization, newest first", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&organization, "organization", "", "The organization")
	cmd.MarkFlagRequired("organization")
	for _, f := range filterFlags {
		cmd.Flags().String(f.flag, "", f.usage)
	}
	cmd.RunE = func(*cobra.Command, []string) error {
		query := url.Values{"limit": {"100"}}
		for _, f := range filterFlags {
			if flag := cmd.Flags().Lookup(f.flag); flag.Changed {
				query.Set(f.parameter, flag.Value.String())
			}
		}
		items := []json.RawMessage{}
		for cursor, more := "", true; more; {
			if cursor != "" {
				query.Set("cursor", cursor)
			}
			data, err := o.call(http.MethodGet, organizationPath(organization)+"?"+query.Encode(), nil)
			if err != nil {
				return err
			}
			var page struct {
				Items      []json.RawMessage `json:"items"`
				NextCursor string            `json:"nextCursor"`
			}
			if err := json.Unmarshal(data, &page); err != nil {
				return fmt.Errorf("reading the answer of Caddy: %w", err)
			}
			items = append(items, page.Items...)
			cursor, more = page.NextCursor, page.NextCursor != ""
		}
		return o.printList(items)
	}
	return cmd
}

func (o *operator) get() *cobra.Command {
	return &cobra.Command{Use: "get <id>", Short: "Shows one key", Args: cobra.MatchAll(cobra.ExactArgs(1), noTokens), RunE: o.one(http.MethodGet)}
}

// whoseFlags are the flags of revoke that become fields of the body.
var whoseFlags = []struct{ flag, field, usage string }{
	{"user", "userId", "All active keys of this user"},
	{"service-account", "serviceAccountId", "All active keys of this service account"},
	{"minted-by", "mintedBy", "All active keys that the key of this id has made"},
}

func (o *operator) revoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke (<id> | --organization <id> (--user <id> | --service-account <id> | --minted-by <id>))",
		Short: "Ends a key for good, or all keys of an owner",
		Args:  cobra.MatchAll(cobra.MaximumNArgs(1), noTokens),
	}
	organization := cmd.Flags().String("organization", "", "The organization of the owner")
	for _, f := range whoseFlags {
		cmd.Flags().String(f.flag, "", f.usage)
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		body := make(map[string]string)
		for _, f := range whoseFlags {
			if flag := cmd.Flags().Lookup(f.flag); flag.Changed {
				body[f.field] = flag.Value.String()
			}
		}
		switch {
		case len(args) == 1 && len(body) == 0 && *organization == "":
			return o.one(http.MethodDelete)(cmd, args)
		case len(args) == 1:
			return errors.New("give the id of a key, or whose keys to revoke, not both")
		case *organization == "" || len(body) == 0:
			return errors.New("which key? give its id, or --organization with --user, --service-account or --minted-by")
		}
		data, err := o.call(http.MethodPost, organizationPath(*organization)+"/revoke", body)
		if err != nil {
			return err
		}
		if o.json {
			return o.printJSON(data)
		}
		return o.printFields(data)
	}
	return cmd
}

func (o *operator) one(method string) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		data, err := o.call(method, keyPath(args[0]), nil)
		if err != nil {
			return ofKey(args[0], err)
		}
		return o.printKey(data)
	}
}
