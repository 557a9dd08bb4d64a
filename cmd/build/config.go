package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// config has the JSON names and types of xcaddy's Builder, and nothing else. A
// test in tools compares the two by way of tools/testdata/every-field.json.
type config struct {
	OS           string        `json:"os"`
	Arch         string        `json:"arch"`
	ARM          string        `json:"arm"`
	Cgo          bool          `json:"cgo"`
	CaddyVersion string        `json:"caddy_version"`
	Plugins      []plugin      `json:"plugins"`
	Replacements []replacement `json:"replacements"`
	TimeoutGet   time.Duration `json:"timeout_get"`
	TimeoutBuild time.Duration `json:"timeout_build"`
	RaceDetector bool          `json:"race_detector"`
	SkipCleanup  bool          `json:"skip_cleanup"`
	SkipBuild    bool          `json:"skip_build"`
	Debug        bool          `json:"debug"`
	BuildFlags   string        `json:"build_flags"`
	ModFlags     string        `json:"mod_flags"`
	PgoProfile   string        `json:"pgo_profile"`
	EmbedDirs    []embedDir    `json:"embed_dir"`
}

type plugin struct {
	// PackagePath is what is imported: a module's root or a package in it.
	PackagePath string `json:"module_path"`
	Version     string `json:"version"`
}

type replacement struct {
	Old string `json:"old"` // module path or module@version
	New string `json:"new"` // folder (starts with . or is absolute) or module@version
}

type embedDir struct {
	Dir  string `json:"dir"`
	Name string `json:"name"`
}

// readConfig reads and checks a file. The paths in the result are absolute;
// relative ones in the file start at the file's folder.
func readConfig(file string) (config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return config{}, errors.Unwrap(err) // the caller names the file
	}
	c, err := decode(data)
	if err != nil {
		return config{}, err
	}
	if err := c.check(); err != nil {
		return config{}, err
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return config{}, err
	}
	c.resolve(dir)
	return c, nil
}

// decode is strict: a typing mistake must not become a binary that lacks something.
func decode(data []byte) (config, error) {
	var c config
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return config{}, explain(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return config{}, errors.New("there is something after the end of the JSON object")
	}
	if err := checkNames(json.NewDecoder(bytes.NewReader(data))); err != nil {
		return config{}, err
	}
	return c, nil
}

func explain(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return fmt.Errorf("the file must hold one JSON object, not a JSON %s", wrong.Value)
		}
		return fmt.Errorf("field %q has the wrong type: %s", wrong.Field, wrong.Value)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON object is not complete")
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// checkNames refuses what encoding/json lets pass: a name given twice in one
// object, of which the last would win, and a name in another case. The input
// must be valid JSON.
func checkNames(dec *json.Decoder) error {
	token, err := dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		seen := map[string]bool{}
		for dec.More() {
			token, err := dec.Token()
			if err != nil {
				return err
			}
			name := token.(string)
			if name != strings.ToLower(name) {
				return fmt.Errorf("unknown field %q", name)
			}
			if seen[name] {
				return fmt.Errorf("field %q is given twice", name)
			}
			seen[name] = true
			if err := checkNames(dec); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	case json.Delim('['):
		for dec.More() {
			if err := checkNames(dec); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	return err
}

// check names the first field that is missing. xcaddy could do without
// caddy_version and plugins, but would build the newest Caddy, or one without us.
func (c config) check() error {
	missing := func(field string) error { return fmt.Errorf("field %q is missing or empty", field) }
	if c.CaddyVersion == "" {
		return missing("caddy_version")
	}
	if len(c.Plugins) == 0 {
		return missing("plugins")
	}
	for i, p := range c.Plugins {
		if p.PackagePath == "" {
			return missing(fmt.Sprintf("plugins[%d].module_path", i))
		}
	}
	for i, r := range c.Replacements {
		if r.Old == "" {
			return missing(fmt.Sprintf("replacements[%d].old", i))
		}
		if r.New == "" {
			return missing(fmt.Sprintf("replacements[%d].new", i))
		}
	}
	for i, e := range c.EmbedDirs {
		if e.Dir == "" {
			return missing(fmt.Sprintf("embed_dir[%d].dir", i))
		}
	}
	return nil
}

// resolve makes the paths absolute against dir: xcaddy builds in another folder.
func (c *config) resolve(dir string) {
	abs := func(path *string) {
		*path = filepath.FromSlash(*path)
		if !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	for i := range c.Replacements {
		if r := &c.Replacements[i]; isFolder(r.New) {
			abs(&r.New)
		}
	}
	for i := range c.EmbedDirs {
		abs(&c.EmbedDirs[i].Dir)
	}
	if c.PgoProfile != "" {
		abs(&c.PgoProfile)
	}
}

// isFolder tells a folder from a module path as go.mod does: a relative folder
// starts with a dot segment.
func isFolder(path string) bool {
	first, _, _ := strings.Cut(filepath.ToSlash(path), "/")
	return first == "." || first == ".." || filepath.IsAbs(path)
}
