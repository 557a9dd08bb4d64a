package apikeys_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/caddy-apikeys/caddy-apikeys"

// arrows says which of the project's folders, and which foreign modules, the
// code of a folder may import. docs/architecture.md draws it.
var arrows = map[string][]string{
	".":                   {"caddymodule", "storage/boltstore"},
	"apikey":              {},
	"management":          {"apikey", "github.com/go-json-experiment"},
	"management/traffic":  {},
	"metrics":             {"apikey", "github.com/prometheus"},
	"storage":             {"apikey"},
	"storage/storagetest": {"apikey"},
	"storage/boltstore":   {"apikey", "storage", "go.etcd.io/bbolt", "go.uber.org/zap", "github.com/caddyserver"},
	"caddymodule": {"apikey", "management", "metrics", "storage",
		"github.com/caddyserver", "go.uber.org/zap", "github.com/spf13/cobra", "github.com/google/uuid", "github.com/prometheus", "golang.org/x/term"},
	"cmd/caddy": {".", "github.com/caddyserver"},
	"cmd/build": {},
}

// Files of a driver other than this one know nothing of Caddy.
const driverFace = "module.go"

func TestImportsPointOneWay(t *testing.T) {
	seen := make(map[string]bool)
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		folder := path.Dir(filepath.ToSlash(file))
		allowed, known := arrows[folder]
		if !known {
			if !strings.HasPrefix(folder, "tools") && !strings.HasPrefix(folder, "bench") && !strings.Contains(folder, "/testdata/") {
				t.Errorf("%s: the folder %s has no place in the picture; give it one", file, folder)
			}
			return nil
		}
		seen[folder] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !mayImport(allowed, imported) {
				t.Errorf("%s imports %s, which its folder may not", file, imported)
			}
			if strings.HasPrefix(folder, "storage/") && path.Base(file) != driverFace && strings.HasPrefix(imported, "github.com/caddyserver") {
				t.Errorf("%s imports %s: only %s of a driver knows Caddy", file, imported, driverFace)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for folder := range arrows {
		if !seen[folder] {
			t.Errorf("the folder %s is in the picture and not in the tree", folder)
		}
	}
}

func mayImport(allowed []string, imported string) bool {
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	if own, ok := strings.CutPrefix(imported, module); ok {
		folder := strings.TrimPrefix(own, "/")
		return slices.Contains(allowed, folder) || folder == "" && slices.Contains(allowed, ".")
	}
	return slices.ContainsFunc(allowed, func(prefix string) bool { return strings.HasPrefix(imported, prefix) })
}
