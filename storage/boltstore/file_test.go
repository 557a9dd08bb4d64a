package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTheNameOfEachNewDirectoryIsMadeDurable(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "c")
	var synced []string
	sync := func(d *os.File) error {
		synced = append(synced, d.Name())
		return syncDirectory(d)
	}
	if err := makeDirectory(dir, sync); err != nil {
		t.Fatal(err)
	}
	want := []string{root, filepath.Join(root, "a"), filepath.Join(root, "a", "b")}
	if !slices.Equal(synced, want) {
		t.Errorf("synced %q, want %q", synced, want)
	}
	if err := makeDirectory(dir, sync); err != nil || len(synced) != len(want) {
		t.Errorf("for a directory that is there it answered %v, and synced %q", err, synced[len(want):])
	}
	no := errors.New("no")
	if err := makeDirectory(filepath.Join(dir, "d"), func(*os.File) error { return no }); err != no {
		t.Errorf("when a name cannot be made durable it answered %v", err)
	}
}
