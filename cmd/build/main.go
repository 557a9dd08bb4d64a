// Command build makes a Caddy binary from xcaddy.json:
//
//	go run ./cmd/build [-config xcaddy.json] [-output caddy]
//
// xcaddy reads no file, so this command reads one for it. The file is the JSON
// form of xcaddy's Builder, and is turned into one xcaddy command line. What the
// file leaves out, xcaddy takes from the environment as it always does. Each
// line printed after "+" is a command that can be repeated by hand.
//
// The xcaddy of the PATH is used if there is one. Otherwise it is built from
// tools, which pins its version; that works from the root of the repository only.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	configFile := flag.String("config", "xcaddy.json", "build description; its relative paths start at its own folder")
	output := flag.String("output", "", "binary to write (default ./caddy, for Windows ./caddy.exe)")
	flag.Parse()
	if flag.NArg() > 0 {
		fail(fmt.Errorf("unexpected argument %q", flag.Arg(0)))
	}
	if err := build(*configFile, *output); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "build:", err)
	os.Exit(1)
}

func build(configFile, output string) error {
	c, err := readConfig(configFile)
	if err != nil {
		return fmt.Errorf("reading %s: %w", configFile, err)
	}
	env, args, err := xcaddyBuild(c, output)
	if err != nil {
		return fmt.Errorf("reading %s: %w", configFile, err)
	}
	program, install, err := findXcaddy()
	if err != nil {
		return err
	}

	// Ctrl-C reaches xcaddy too, which then removes its temporary folder: outlive it.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	if install != nil {
		if err := install.run(); err != nil {
			return err
		}
	}
	return command{env, append([]string{program}, args...)}.run()
}
