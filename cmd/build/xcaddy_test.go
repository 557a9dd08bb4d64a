package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func everyField(t *testing.T) (c config, dir string) {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "tools", "testdata"))
	if err != nil {
		t.Fatal(err)
	}
	c, err = readConfig(filepath.Join(dir, "every-field.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func TestEveryFieldReachesXcaddy(t *testing.T) {
	c, dir := everyField(t)
	c.TimeoutGet, c.TimeoutBuild = 0, 0
	env, args, err := xcaddyBuild(c, "out/caddy")
	if err != nil {
		t.Fatal(err)
	}
	wantEnv := []string{
		"GOWORK=off",
		"GOOS=linux",
		"GOARCH=arm",
		"GOARM=7",
		"CGO_ENABLED=1",
		"XCADDY_RACE_DETECTOR=1",
		"XCADDY_SKIP_CLEANUP=1",
		"XCADDY_SKIP_BUILD=1",
		"XCADDY_DEBUG=1",
		"XCADDY_GO_BUILD_FLAGS=-trimpath -ldflags '-s -w'",
		"XCADDY_GO_MOD_FLAGS=-modcacherw",
	}
	wantArgs := []string{
		"build", "v2.11.9",
		"--output", "out/caddy",
		"--with", "example.com/released@v1.2.3",
		"--with", "example.com/newest",
		"--with", "example.com/local@v0.0.0",
		"--with", "example.com/local/v2@v2.0.0",
		"--with", "example.com/local/inside",
		"--with", "example.com/forked",
		"--replace", "example.com/local=" + dir,
		"--replace", "example.com/local/v2=" + filepath.Join(filepath.Dir(dir), "v2"),
		"--replace", "example.com/forked@v1.0.0=example.com/fork@v1.0.1",
		"--embed", "www:" + filepath.Join(dir, "site"),
		"--embed", ":" + filepath.Join(dir, "plain"),
		"--pgo", filepath.Join(dir, "cpu.pprof"),
	}
	if !slices.Equal(env, wantEnv) {
		t.Errorf("environment\n got %q\nwant %q", env, wantEnv)
	}
	if !slices.Equal(args, wantArgs) {
		t.Errorf("arguments\n got %q\nwant %q", args, wantArgs)
	}
}

func TestWhatTheFileLeavesOutIsLeftToXcaddy(t *testing.T) {
	c := config{CaddyVersion: "v2.11.9", Plugins: []plugin{{PackagePath: "example.com/a"}}}
	env, args, err := xcaddyBuild(c, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"GOWORK=off"}; !slices.Equal(env, want) {
		t.Errorf("environment %q, want %q", env, want)
	}
	if want := []string{"build", "v2.11.9", "--with", "example.com/a"}; !slices.Equal(args, want) {
		t.Errorf("arguments %q, want %q", args, want)
	}
}

func TestWhatXcaddysCommandLineCannotSayIsRefused(t *testing.T) {
	for field, change := range map[string]func(*config){
		"timeout_get":         func(c *config) { c.TimeoutGet = 1 },
		"timeout_build":       func(c *config) { c.TimeoutBuild = 1 },
		"plugins[1]":          func(c *config) { c.Plugins[1].PackagePath = "example.com/a=../a" },
		"plugins[2]":          func(c *config) { c.Plugins[2].PackagePath = "example.com/a@v1.0.0" },
		"plugins[0]":          func(c *config) { c.Plugins[0].Version = "v1.0.0=../a" },
		"replacements[1].old": func(c *config) { c.Replacements[1].Old = "example.com/a=b" },
		"embed_dir[0].name":   func(c *config) { c.EmbedDirs[0].Name = "a:b" },
	} {
		t.Run(field, func(t *testing.T) {
			c, _ := everyField(t)
			c.TimeoutGet, c.TimeoutBuild = 0, 0
			change(&c)
			_, _, err := xcaddyBuild(c, "")
			if err == nil || !strings.Contains(err.Error(), `"`+field+`"`) {
				t.Errorf("got %v, want an error that names %q", err, field)
			}
		})
	}
}

func TestXcaddyComesFromThePathAndElseFromTools(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", filepath.Join(dir, "bin"))

	if _, _, err := findXcaddy(); err == nil || !strings.Contains(err.Error(), "root of the repository") {
		t.Errorf("with neither: got %v", err)
	}

	write(t, filepath.Join(dir, "tools", "go.mod"))
	program, install, err := findXcaddy()
	if err != nil || program != filepath.Join("tools", "bin", "xcaddy") || install == nil {
		t.Errorf("from tools: got %q, %v, %v", program, install, err)
	}

	inPath := filepath.Join(dir, "bin", "xcaddy")
	write(t, inPath)
	program, install, err = findXcaddy()
	if err != nil || program != inPath || install != nil {
		t.Errorf("from the PATH: got %q, %v, %v", program, install, err)
	}
}

func write(t *testing.T, file string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
}
