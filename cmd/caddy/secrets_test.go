package main_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func (g *gateway) keepSecret(token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens = append(g.tokens, token)
}

// aToken is the expression that secret scanners are given.
var aToken = regexp.MustCompile(`\bak_[0-9A-Za-z]{71}\b`)

// secretOf returns the random part of a token.
func secretOf(token string) string {
	return token[strings.LastIndexByte(token, '_')+1:][22 : 22+43]
}

// requireNoSecretIn checks that no file below dir holds a token, or the secret
// of one that was issued: not the log, not the store, not what Caddy saved.
func (g *gateway) requireNoSecretIn(dir string) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file of Caddy
		}
		if err != nil || !entry.Type().IsRegular() || filepath.Dir(path) == g.scripts() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if at := aToken.FindIndex(text); at != nil {
			g.t.Errorf("%s holds a token, at byte %d", path, at[0])
		}
		for _, token := range g.tokens {
			if at := bytes.Index(text, []byte(secretOf(token))); at >= 0 {
				g.t.Errorf("%s holds the secret of a token, at byte %d", path, at)
			}
		}
		return nil
	})
	if err != nil {
		g.t.Error(err)
	}
}
