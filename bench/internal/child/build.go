package child

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds a program of this module, or of one in a folder of it, with the flags
// of the project's own binary, and returns its path in dir.
func Build(ctx context.Context, folder, dir string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, strings.ReplaceAll(folder, "/", "-"))
	out, err := filepath.Abs(program)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nobadger,nomysql,nopgx", "-o", out, ".")
	cmd.Dir, cmd.Stderr = filepath.Join(root, folder), os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building %s: %w", folder, err)
	}
	return program, nil
}

// Root returns the folder of this module.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/caddy-apikeys/caddy-apikeys").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w; run this in its folder", err)
	}
	return strings.TrimSpace(string(out)), nil
}
