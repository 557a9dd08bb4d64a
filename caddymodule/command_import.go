package caddymodule

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-apikeys/caddy-apikeys/management"
)

// How much is sent in one call: lines, or bytes if they are long. A call is one write,
// and its lines go to pages all over a large store, which the server has in memory
// together: more in a call is hardly faster.
const (
	importPiece      = 250
	importPieceBytes = 1 << 20
	// maxImportLines bounds what the command remembers of a file: 16 bytes of
	// each line, some 40 MB. The server remembers nothing from piece to piece.
	maxImportLines = 1_000_000
)

// imported is what became of the lines of an import, counted from 1.
type imported struct {
	Imported   int            `json:"imported"`
	Duplicates []int          `json:"duplicates,omitempty"`
	Refused    []refusedLine  `json:"refused,omitempty"`
	Room       map[string]int `json:"room,omitempty"` // for more keys, by organization
}

type refusedLine struct {
	Line    int    `json:"line"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
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
for create. All lines are checked first: when one is bad, or one too many for its
organization, nothing is imported. A key that is there already is reported and left
as it is. A file has up to a million lines.`,
		Args: cobra.ExactArgs(1),
	}
	dry := cmd.Flags().Bool("dry-run", false, "Check the file and import nothing")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		result, err := o.importFile(args[0], true)
		done := err == nil && len(result.Refused) == 0 && !*dry
		if done {
			result, err = o.importFile(args[0], false)
		}
		if err != nil {
			return err
		}
		if err := o.printImport(result, done); err != nil {
			return err
		}
		switch refused := len(result.Refused); {
		case refused > 0 && done:
			return fmt.Errorf("%s: %d lines were refused, as keys were made or the configuration was changed meanwhile; the others were imported", args[0], refused)
		case refused > 0:
			return fmt.Errorf("%s: %d lines cannot be imported, nothing was", args[0], refused)
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

	whole := wholeFile{make(map[[16]byte]bool), make(map[string]int)}
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
		if before+count > maxImportLines {
			return total, fmt.Errorf("%s has more than %d lines: split it", name, maxImportLines)
		}
		part, err := o.importPiece(uri, piece.String())
		if err != nil {
			return total, fmt.Errorf("%s, lines %d to %d: %w", name, before+1, before+count, err)
		}
		if dry {
			whole.judge(&part, piece.String())
		}
		total.add(part, before)
		before += count
		show.at(before)
		piece.Reset()
		count = 0
	}
	return total, nil
}

// wholeFile finds what no piece of a file shows by itself while nothing is written:
// hashes that come again, and organizations that get more keys than they may have.
type wholeFile struct {
	hashes map[[16]byte]bool
	keys   map[string]int // by organization
}

// judge corrects what the server has said of a piece.
func (f wholeFile) judge(part *imported, piece string) {
	known := make(map[int]bool)
	for _, line := range part.Duplicates {
		known[line] = true
	}
	for _, refused := range part.Refused {
		known[refused.Line] = true
	}
	number := 0
	for text := range strings.Lines(piece) {
		var line struct{ Hash, Algorithm, Secret, OrganizationID string }
		// The server understands whatever it takes, and is not asked again about
		// what it did not.
		if number++; known[number] || json.Unmarshal([]byte(text), &line) != nil {
			continue
		}
		sum := sha256.Sum256([]byte(line.Algorithm + "/" + line.Secret + "/" + strings.ToLower(line.Hash)))
		hash := [16]byte(sum[:])
		room, limited := part.Room[line.OrganizationID]
		switch {
		case f.hashes[hash]:
			part.Imported--
			part.Duplicates = append(part.Duplicates, number)
		case limited && f.keys[line.OrganizationID] >= room:
			part.Imported--
			part.Refused = append(part.Refused, refusedLine{Line: number, Message: management.KeyLimit().Message})
		default:
			f.hashes[hash] = true
			f.keys[line.OrganizationID]++
		}
	}
	slices.Sort(part.Duplicates)
	slices.SortFunc(part.Refused, func(a, b refusedLine) int { return a.Line - b.Line })
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
