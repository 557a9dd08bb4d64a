package main_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const unitFile = "../../deploy/caddy-apikeys.service"

// readUnit returns the settings of the systemd service, by name.
func readUnit(t *testing.T) map[string][]string {
	t.Helper()
	unit := make(map[string][]string)
	for line := range strings.Lines(readText(t, unitFile)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && name[0] != '#' {
			unit[name] = append(unit[name], value)
		}
	}
	return unit
}

// Everything but systemd itself: its commands, its environment, the Caddyfile of
// docs/deploy.md, and that nothing is written where the service may not.
func TestTheServiceStartsReloadsAndStops(t *testing.T) {
	unit := readUnit(t)
	g := newGateway(t, plainSite)
	state, runtime, credentials := filepath.Join(g.home, "state"), filepath.Join(g.home, "run"), filepath.Join(g.home, "credentials")
	for _, dir := range []string{state, filepath.Join(runtime, unit["RuntimeDirectory"][0]), credentials} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	name, source, _ := strings.Cut(unit["LoadCredential"][0], ":")
	if !strings.Contains(firstExample(t, "docs/deploy.md", "text"), source) {
		t.Errorf("docs/deploy.md does not tell how to make %s", source)
	}
	if err := os.WriteFile(filepath.Join(credentials, name), []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.listenAt("unix/"+filepath.Join(runtime, unit["RuntimeDirectory"][0], "admin.sock"), freePort(t))
	for _, line := range unit["Environment"] {
		g.env = append(g.env, strings.Fields(strings.NewReplacer("%S", state, "%d", credentials).Replace(line))...)
	}
	notify := filepath.Join(g.home, "notify")
	messages, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Close()
	g.env = append(g.env, "NOTIFY_SOCKET="+notify)
	caddyfile := firstExample(t, "docs/deploy.md", "caddyfile")
	g.configure(g.here(strings.NewReplacer("/run/", runtime+"/", "api.example.com", g.url).Replace(caddyfile)))

	if want := []string{"/usr/local/bin/caddy run --config /etc/caddy/Caddyfile"}; !slices.Equal(unit["ExecStart"], want) {
		t.Errorf("the service is started by %q, the test by %q", unit["ExecStart"], want)
	}
	g.start()
	requireMessage(t, messages, "READY=1")
	token := g.issue(nil)["key"]
	g.requireStatus(200, "GET", "/", token)

	reload := strings.Fields(strings.Replace(unit["ExecReload"][0], "/etc/caddy/Caddyfile", g.file, 1))
	if _, stderr, code := g.run(g.command(reload[1:]...)); code != 0 {
		t.Errorf("%q: exit code %d, %s", reload, code, stderr)
	}
	requireMessage(t, messages, "RELOADING=1")
	requireMessage(t, messages, "READY=1")
	g.settle()
	g.requireStatus(200, "GET", "/", token)
	g.stop()

	for file := range filesBelow(t, g.home) {
		first, below, _ := strings.Cut(file, string(filepath.Separator))
		switch {
		case first == "state" && strings.HasPrefix(below, unit["StateDirectory"][0]+string(filepath.Separator)), first == "run", first == "credentials":
		case file == "Caddyfile", file == "log", file == "notify":
		default:
			t.Errorf("it has written %s", file)
		}
	}
	grace, err := time.ParseDuration(regexp.MustCompile(`grace_period (\S+)`).FindStringSubmatch(caddyfile)[1])
	if err != nil {
		t.Fatal(err)
	}
	if timeout, err := time.ParseDuration(unit["TimeoutStopSec"][0]); err != nil || timeout <= grace {
		t.Errorf("TimeoutStopSec is %s, %v, and grace_period %s", timeout, err, grace)
	}
}

// firstExample returns the first example of a page that is of a language.
func firstExample(t *testing.T, file, language string) string {
	t.Helper()
	for _, f := range documentation(t) {
		if f.file == file && f.language == language {
			return f.text
		}
	}
	t.Fatalf("%s has no example of the language %s", file, language)
	return ""
}

// requireMessage waits for a message to the service manager.
func requireMessage(t *testing.T, messages *net.UnixConn, want string) {
	t.Helper()
	messages.SetReadDeadline(time.Now().Add(patience))
	for text := make([]byte, 4096); ; {
		n, err := messages.Read(text)
		if err != nil {
			t.Fatalf("waiting for %s: %v", want, err)
		}
		if strings.Contains(string(text[:n]), want) {
			return
		}
	}
}

// There is no Docker to build the image with.
func TestTheDockerfileIsOfThisClone(t *testing.T) {
	text := readText(t, "../../deploy/Dockerfile")
	mod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readText(t, "../../go.mod"))
	if want := "FROM golang:" + mod[1] + " "; !strings.Contains(text, want) {
		t.Errorf("it does not begin with %q, the version in go.mod", want)
	}
	build := regexp.MustCompile(`(?m)^CADDY_BUILD := (.*)$`).FindStringSubmatch(readText(t, "../../Makefile"))
	if want := build[1] + " -o /out/caddy ./cmd/caddy"; !strings.Contains(text, want) {
		t.Errorf("it does not build as make does: %s", want)
	}
	copied := regexp.MustCompile(`(?m)^COPY ([^-\n].*) \S+$`).FindAllStringSubmatch(text, -1)
	if len(copied) == 0 {
		t.Error("it copies nothing of the clone")
	}
	for _, match := range copied {
		for _, file := range strings.Fields(match[1]) {
			if _, err := os.Stat(filepath.Join("../..", file)); err != nil {
				t.Errorf("it copies what is not there: %v", err)
			}
		}
	}
	// How it starts is how it is documented for the program.
	if !strings.Contains(text, `CMD ["run", "--config", "/etc/caddy/Caddyfile"]`) || !strings.Contains(text, "USER 65532:65532") {
		t.Error("it does not run the Caddyfile as an ordinary user")
	}
}
