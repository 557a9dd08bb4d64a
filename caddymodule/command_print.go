package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// shownKey is what the tables show of a key.
type shownKey struct {
	ID, Name, Description, Key, KeyPrefix, Scope           string
	OrganizationID, UserID, ServiceAccountID               string
	CreatedAt, CreatedBy, ExpiresAt, ReplacedBy, RevokedAt string
	LastUsedAt, LastUsedIP, LastUsedUserAgent              string
}

func (k *shownKey) owner() string {
	if k.ServiceAccountID != "" {
		return k.ServiceAccountID
	}
	return k.UserID
}

func (k *shownKey) status(now time.Time) string {
	if k.RevokedAt != "" {
		return "revoked"
	}
	if end, err := time.Parse(time.RFC3339, k.ExpiresAt); err == nil && !now.Before(end) {
		return "expired"
	}
	return "active"
}

func (o *operator) printKey(data json.RawMessage) error {
	if o.json {
		return o.printJSON(data)
	}
	var k shownKey
	if err := json.Unmarshal(data, &k); err != nil {
		return fmt.Errorf("reading the answer of Caddy: %w", err)
	}
	return o.table(func(w io.Writer) {
		for _, row := range [][2]string{
			{"id", k.ID}, {"token (shown this once)", k.Key}, {"name", k.Name}, {"description", k.Description}, {"status", k.status(time.Now())},
			{"scope", k.Scope}, {"organization", k.OrganizationID}, {"user", k.UserID}, {"service account", k.ServiceAccountID},
			{"token starts with", k.KeyPrefix}, {"created", k.CreatedAt}, {"created by", k.CreatedBy}, {"expires", k.ExpiresAt}, {"replaced by", k.ReplacedBy}, {"revoked", k.RevokedAt},
			{"last used", k.LastUsedAt}, {"last used from", k.LastUsedIP}, {"last used by", k.LastUsedUserAgent},
		} {
			if row[1] != "" {
				fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
			}
		}
	})
}

func (o *operator) printList(items []json.RawMessage) error {
	if o.json {
		data, err := json.Marshal(map[string]any{"items": items})
		if err != nil {
			return err
		}
		return o.printJSON(data)
	}
	now := time.Now()
	keys := make([]shownKey, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &keys[i]); err != nil {
			return fmt.Errorf("reading the answer of Caddy: %w", err)
		}
	}
	return o.table(func(w io.Writer) {
		fmt.Fprintln(w, "ID\tNAME\tSCOPE\tSTATUS\tOWNER\tCREATED\tEXPIRES\tLAST USED")
		for i := range keys {
			k := &keys[i]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Name, k.Scope, k.status(now), k.owner(), k.CreatedAt, dash(k.ExpiresAt), dash(k.LastUsedAt))
		}
	})
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// printFields prints the members of an object that has simple values.
func (o *operator) printFields(data json.RawMessage) error {
	fields := make(map[string]any)
	in := json.NewDecoder(bytes.NewReader(data))
	in.UseNumber()
	if err := in.Decode(&fields); err != nil {
		return fmt.Errorf("reading the answer of Caddy: %w", err)
	}
	return o.table(func(w io.Writer) {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			fmt.Fprintf(w, "%s\t%v\n", name, fields[name])
		}
	})
}

// field is a member of an object.
type field struct {
	name  string
	value any
}

// printObject prints what a command has done.
func (o *operator) printObject(fields ...field) error {
	if o.json {
		values := make(map[string]any)
		for _, f := range fields {
			values[f.name] = f.value
		}
		data, err := json.Marshal(values)
		if err != nil {
			return err
		}
		return o.printJSON(data)
	}
	return o.table(func(w io.Writer) {
		for _, f := range fields {
			fmt.Fprintf(w, "%s\t%v\n", f.name, f.value)
		}
	})
}

// maxShownLines is how many line numbers a person is shown; --json has all.
const maxShownLines = 20

func (o *operator) printImport(result imported, done bool) error {
	if o.json {
		data, err := json.Marshal(result)
		if err != nil {
			return err
		}
		return o.printJSON(data)
	}
	return o.table(func(w io.Writer) {
		what := "can be imported"
		if done {
			what = "imported"
		}
		fmt.Fprintf(w, "%s\t%d\n", what, result.Imported)
		fmt.Fprintf(w, "duplicates\t%d\n", len(result.Duplicates))
		for i, line := range result.Duplicates {
			if i == maxShownLines {
				fmt.Fprintf(w, "...\t\n")
				break
			}
			fmt.Fprintf(w, "line %d\tis there already\n", line)
		}
		for i, refused := range result.Refused {
			if i == maxShownLines {
				fmt.Fprintf(w, "...\t\n")
				break
			}
			fmt.Fprintf(w, "line %d\t%s\n", refused.Line, refused.Message)
		}
	})
}

// table writes rows in aligned columns, all at once: half a token is worse than
// none.
func (o *operator) table(rows func(io.Writer)) error {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	rows(w)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := o.out.Write(text.Bytes())
	return err
}

func (o *operator) printJSON(data json.RawMessage) error {
	var text bytes.Buffer
	if err := json.Indent(&text, data, "", "  "); err != nil {
		return fmt.Errorf("reading the answer of Caddy: %w", err)
	}
	text.WriteByte('\n')
	_, err := o.out.Write(text.Bytes())
	return err
}
