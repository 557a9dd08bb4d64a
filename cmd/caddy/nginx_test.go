//go:build clients

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestClientNginxAsksTheGateAsDocumented(t *testing.T) {
	g := startAsked(t, proxyExample(t, "subrequest"))
	g.behind(proxyExample(t, "auth_request /_gate"), func(config string) *exec.Cmd {
		// All that it writes is below a directory of the test, so that it needs
		// no rights of its own.
		dir := t.TempDir()
		text := fmt.Sprintf("error_log stderr;\npid %[1]s/pid;\nevents {}\nhttp {\naccess_log off;\n", dir)
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			text += fmt.Sprintf("%s_temp_path %s/%[1]s;\n", kind, dir)
		}
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(text+config+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		program := "nginx"
		if _, err := exec.LookPath(program); err != nil {
			program = "/usr/sbin/nginx" // not in the PATH of Debian's users
		}
		return exec.Command(program, "-e", "stderr", "-p", dir, "-c", file, "-g", "daemon off;")
	})
	g.requireGuarded()
}
