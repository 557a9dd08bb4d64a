package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAWrongFileIsRefusedWithTheFieldNamed(t *testing.T) {
	const plugins = `"plugins": [{"module_path": "example.com/a"}]`
	for name, tc := range map[string]struct{ file, want string }{
		"empty file":         {``, `not complete`},
		"cut off":            {`{"caddy_version": "v2`, `not complete`},
		"no JSON":            {`caddy_version = v2`, `invalid character`},
		"array":              {`[]`, `one JSON object`},
		"null":               {`null`, `"caddy_version" is missing`},
		"unknown field":      {`{"caddy_versoin": "v2.11.9"}`, `unknown field "caddy_versoin"`},
		"unknown below":      {`{"plugins": [{"path": "example.com/a"}]}`, `unknown field "path"`},
		"other case":         {`{"Caddy_version": "v2.11.9", ` + plugins + `}`, `unknown field "Caddy_version"`},
		"wrong type":         {`{"caddy_version": 2}`, `"caddy_version" has the wrong type: number`},
		"wrong type below":   {`{"plugins": [{"module_path": true}]}`, `"plugins.module_path" has the wrong type: bool`},
		"timeout as text":    {`{"timeout_get": "5m"}`, `"timeout_get" has the wrong type: string`},
		"given twice":        {`{"caddy_version": "v2.11.9", "caddy_version": "v2.11.8", ` + plugins + `}`, `"caddy_version" is given twice`},
		"given twice below":  {`{"caddy_version": "v2.11.9", "plugins": [{"module_path": "a", "module_path": "b"}]}`, `"module_path" is given twice`},
		"second object":      {`{"caddy_version": "v2.11.9", ` + plugins + `} {}`, `after the end`},
		"trailing bracket":   {`{"caddy_version": "v2.11.9", ` + plugins + `}]`, `after the end`},
		"no version":         {`{` + plugins + `}`, `"caddy_version" is missing`},
		"no plugins":         {`{"caddy_version": "v2.11.9"}`, `"plugins" is missing or empty`},
		"empty plugin list":  {`{"caddy_version": "v2.11.9", "plugins": []}`, `"plugins" is missing or empty`},
		"plugin not named":   {`{"caddy_version": "v2.11.9", "plugins": [{"version": "v1.0.0"}]}`, `"plugins[0].module_path" is missing`},
		"replacement of no":  {`{"caddy_version": "v2.11.9", ` + plugins + `, "replacements": [{"new": "."}]}`, `"replacements[0].old" is missing`},
		"replacement by no":  {`{"caddy_version": "v2.11.9", ` + plugins + `, "replacements": [{"old": "a"}]}`, `"replacements[0].new" is missing`},
		"embedding no place": {`{"caddy_version": "v2.11.9", ` + plugins + `, "embed_dir": [{"name": "www"}]}`, `"embed_dir[0].dir" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "xcaddy.json")
			if err := os.WriteFile(file, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := readConfig(file)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
			if strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("error %q is not one sentence", err)
			}
		})
	}
}

func TestAnErrorNamesTheFileOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "absent.json")
	err := build(file, "")
	if err == nil || strings.Count(err.Error(), file) != 1 {
		t.Errorf("got %v", err)
	}
}

func TestTheRepositorysFileBuildsThisModuleWithItsOwnCaddyVersion(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(filepath.Join(root, "xcaddy.json"))
	if err != nil {
		t.Fatal(err)
	}
	goMod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var module, caddy string
	for line := range strings.Lines(string(goMod)) {
		switch words := strings.Fields(line); {
		case len(words) >= 2 && words[0] == "module":
			module = words[1]
		case len(words) >= 2 && words[0] == "github.com/caddyserver/caddy/v2":
			caddy = words[1]
		}
	}
	if c.CaddyVersion != caddy {
		t.Errorf("xcaddy.json builds Caddy %q, go.mod requires %q", c.CaddyVersion, caddy)
	}
	if c.Plugins[0].PackagePath != module {
		t.Errorf("xcaddy.json builds in %q, this is module %q", c.Plugins[0].PackagePath, module)
	}
	if len(c.Replacements) != 1 || c.Replacements[0] != (replacement{module, root}) {
		t.Errorf("xcaddy.json replaces %v, want %s by %s", c.Replacements, module, root)
	}
	if _, _, err := xcaddyBuild(c, ""); err != nil {
		t.Error(err)
	}
}
