package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// noWorkspace keeps a go.work in a parent folder out of the build.
const noWorkspace = "GOWORK=off"

// findXcaddy returns the xcaddy to run, and the command that makes it first
// where the PATH has none.
func findXcaddy() (program string, install *command, err error) {
	if program, err := exec.LookPath("xcaddy"); err == nil {
		return program, nil, nil
	}
	if _, err := os.Stat(filepath.Join("tools", "go.mod")); errors.Is(err, fs.ErrNotExist) {
		return "", nil, errors.New("xcaddy is not in the PATH and there is no tools/go.mod to build it from: run this in the root of the repository, or install xcaddy")
	}
	// A binary of its own, and not "go tool xcaddy", because GOOS is meant for
	// Caddy and would make an xcaddy that does not run here.
	install = &command{[]string{noWorkspace}, []string{"go", "-C", "tools", "build", "-o", "bin/", "tool"}}
	return filepath.Join("tools", "bin", "xcaddy"), install, nil
}

// xcaddyBuild translates c into environment and arguments of xcaddy. It refuses
// what xcaddy's command line cannot express, rather than lose it. An empty output
// leaves the file name to xcaddy.
func xcaddyBuild(c config, output string) (env, args []string, err error) {
	refuse := func(field, why string) ([]string, []string, error) {
		return nil, nil, fmt.Errorf("field %q cannot be passed on to the xcaddy command: %s", field, why)
	}
	if c.TimeoutGet != 0 {
		return refuse("timeout_get", "it has no such option")
	}
	if c.TimeoutBuild != 0 {
		return refuse("timeout_build", "it has no such option")
	}

	env = []string{noWorkspace}
	for _, v := range []struct{ name, value string }{
		{"GOOS", c.OS},
		{"GOARCH", c.Arch},
		{"GOARM", c.ARM},
		{"CGO_ENABLED", flagValue(c.Cgo)},
		{"XCADDY_RACE_DETECTOR", flagValue(c.RaceDetector)},
		{"XCADDY_SKIP_CLEANUP", flagValue(c.SkipCleanup)},
		{"XCADDY_SKIP_BUILD", flagValue(c.SkipBuild)},
		{"XCADDY_DEBUG", flagValue(c.Debug)},
		{"XCADDY_GO_BUILD_FLAGS", c.BuildFlags},
		{"XCADDY_GO_MOD_FLAGS", c.ModFlags},
	} {
		if v.value != "" {
			env = append(env, v.name+"="+v.value)
		}
	}

	args = []string{"build", c.CaddyVersion}
	if output != "" {
		args = append(args, "--output", output)
	}
	for i, p := range c.Plugins {
		if strings.ContainsAny(p.PackagePath, "@=") || strings.Contains(p.Version, "=") {
			return refuse(fmt.Sprintf("plugins[%d]", i), "a package path has no @ or =, a version no =")
		}
		if p.Version == "" && c.replacedByFolder(p.PackagePath) {
			p.Version = placeholder(p.PackagePath)
		}
		if p.Version != "" {
			p.PackagePath += "@" + p.Version
		}
		args = append(args, "--with", p.PackagePath)
	}
	for i, r := range c.Replacements {
		if strings.Contains(r.Old, "=") {
			return refuse(fmt.Sprintf("replacements[%d].old", i), "a module path has no =")
		}
		args = append(args, "--replace", r.Old+"="+r.New)
	}
	for i, e := range c.EmbedDirs {
		if strings.Contains(e.Name, ":") {
			return refuse(fmt.Sprintf("embed_dir[%d].name", i), "the name ends at the first colon")
		}
		args = append(args, "--embed", e.Name+":"+e.Dir)
	}
	if c.PgoProfile != "" {
		args = append(args, "--pgo", c.PgoProfile)
	}
	return env, args, nil
}

func flagValue(on bool) string {
	if on {
		return "1"
	}
	return ""
}

func (c config) replacedByFolder(module string) bool {
	for _, r := range c.Replacements {
		if r.Old == module && isFolder(r.New) {
			return true
		}
	}
	return false
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// placeholder is a version for a module that a folder replaces. Without one, the
// go command asks the module proxy which versions exist, and gives up where the
// proxy answers "forbidden" and not "not found" to a module that it does not
// know, such as one not published yet. With one it takes the folder whatever the
// proxy says. The other way out, "go mod download" and then GOPROXY=off, needs
// every module of the build in the cache beforehand.
func placeholder(module string) string {
	if last := path.Base(module); majorVersion.MatchString(last) {
		return last + ".0.0"
	}
	return "v0.0.0"
}
