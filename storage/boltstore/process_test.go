package boltstore_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage/boltstore"
)

// The test binary runs itself for what needs another process. This variable then
// holds the task and the path of the store.
const asProcess = "BOLTSTORE_TEST_PROCESS"

func TestMain(m *testing.M) {
	task, path, child := strings.Cut(os.Getenv(asProcess), ": ")
	if !child {
		os.Exit(m.Run())
	}
	if task == "wait and hold" {
		fmt.Println("ready")
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
	s, err := boltstore.Open(path)
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	fmt.Println("open")
	switch task {
	case "hold", "wait and hold":
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "write":
		writeUntilKilled(s)
	}
	_ = s.Close()
}

// process is the test binary at work on a task.
type process struct {
	*exec.Cmd
	in    io.WriteCloser // closing it ends the task "hold"
	lines *bufio.Scanner
}

func start(t *testing.T, task, path string) process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asProcess+"="+task+": "+path)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return process{cmd, in, bufio.NewScanner(out)}
}

// says returns the next line that the process prints. The first says whether it
// could open the store.
func (p process) says() string {
	p.lines.Scan()
	return p.lines.Text()
}

const inUse = "another process uses it"

func TestASecondProcessIsToldThatTheFileIsInUse(t *testing.T) {
	t.Parallel() // it waits, most of the time
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path)
	if said := start(t, "hold", path).says(); !strings.Contains(said, inUse) || !strings.Contains(said, path) {
		t.Errorf("the other process said %q", said)
	}
	put(t, s, "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := start(t, "hold", path)
	if said := other.says(); said != "open" {
		t.Fatalf("after Close, the other process said %q", said)
	}
	if s, err := boltstore.Open(path); err == nil || !strings.Contains(err.Error(), inUse) {
		t.Errorf("while the other process has it, Open returned %v, %v", s, err)
	}
	other.in.Close()
	_ = other.Wait()
	want(t, open(t, path), "a", "1")
}

func TestProcessesThatCreateTheFileTogetherEndUpWithOne(t *testing.T) {
	t.Parallel() // it waits, most of the time
	path := filepath.Join(t.TempDir(), "keys.db")
	var all []process
	for range 4 {
		p := start(t, "wait and hold", path)
		p.says()
		all = append(all, p)
	}
	for _, p := range all {
		_, _ = p.in.Write([]byte("!"))
	}
	won := 0
	for _, p := range all {
		switch said := p.says(); {
		case said == "open":
			won++
		case !strings.Contains(said, inUse):
			t.Errorf("a process said %q", said)
		}
	}
	if won != 1 {
		t.Errorf("%d processes have the store, want 1", won)
	}
}

// writeUntilKilled writes from many goroutines and prints what is durable.
func writeUntilKilled(s apikey.Store) {
	var printing sync.Mutex
	for writer := range 8 {
		go func() {
			for n := 0; ; n++ {
				key := fmt.Sprintf("%d-%d-%d", os.Getpid(), writer, n)
				if err := s.Update(context.Background(), func(tx apikey.Tx) error {
					return tx.Put(apikey.TableKeys, []byte(key), []byte(strings.Repeat("v", n%2000)))
				}); err != nil {
					fmt.Println("failed:", err)
					return
				}
				printing.Lock()
				fmt.Println(key, n%2000)
				printing.Unlock()
			}
		}()
	}
	select {}
}

func TestWhatWasAnsweredSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	answered := map[string]int{}
	for cycle := range 6 {
		writer := start(t, "write", path)
		if said := writer.says(); said != "open" {
			t.Fatalf("cycle %d: %s", cycle, said)
		}
		for n := 0; writer.lines.Scan(); n++ {
			if n == 150+90*cycle {
				if err := writer.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			var key string
			var size int
			if _, err := fmt.Sscan(writer.lines.Text(), &key, &size); err != nil {
				t.Fatalf("cycle %d: %q", cycle, writer.lines.Text())
			}
			answered[key] = size
		}
		_ = writer.Wait()
		s := open(t, path)
		if err := s.View(context.Background(), func(r apikey.Reader) error {
			for key, size := range answered {
				if value, err := r.Get(apikey.TableKeys, []byte(key)); err != nil || value == nil || len(value) != size {
					t.Errorf("cycle %d: %s has %d bytes, %v; want %d", cycle, key, len(value), err, size)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		s.Close()
	}
	t.Logf("%d answered writes survived 6 kills", len(answered))
}
