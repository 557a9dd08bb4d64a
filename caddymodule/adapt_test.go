package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "write what the Caddyfiles in testdata/adapt become into their files")

// Each file holds a Caddyfile, a dashed line, and the JSON or the error that the
// Caddyfile becomes.
func TestCaddyfilesBecomeTheJSONThatTheirFilesShow(t *testing.T) {
	const dashes = "\n----------\n"
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(text), dashes)
			got := adapt(input)
			if *update {
				err := os.WriteFile(file, []byte(strings.TrimRight(input, "\n")+dashes+got), 0o644)
				if err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("%s\nbecame\n%s\nwant\n%s\n(if this is right: go test ./caddymodule -run Caddyfiles -update)", input, got, want)
			}
		})
	}
}

// adapt returns the configuration or the error that a Caddyfile becomes.
func adapt(caddyfile string) string {
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err.Error() + "\n"
	}
	var text bytes.Buffer
	for _, w := range warnings {
		if !strings.Contains(w.Message, "not formatted") {
			text.WriteString("warning: " + w.Message + "\n")
		}
	}
	json.Indent(&text, config, "", "\t")
	text.WriteByte('\n')
	return text.String()
}
