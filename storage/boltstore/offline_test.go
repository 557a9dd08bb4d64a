//go:build linux

package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/storage"
)

// read returns the records of a file that must be sound.
func read(t *testing.T, path string) map[string]string {
	t.Helper()
	store, err := Examine(path, func(problem string) { t.Errorf("%s: %s", path, problem) })
	if err != nil || store == nil {
		t.Fatalf("%s is not sound: %v", path, err)
	}
	defer store.Close()
	all := make(map[string]string)
	if err := store.View(context.Background(), func(r apikey.Reader) error {
		for _, table := range apikey.Tables() {
			if err := r.Scan(table, apikey.Range{}, func(key, value []byte) bool {
				all[table.String()+" "+string(key)] = string(value)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestADamagedFileIsNeverTakenForASoundOne(t *testing.T) {
	s := open(t)
	s.fill(100)
	for i := range 20 {
		s.mustPut(fmt.Sprintf("%06d", i*5), strings.Repeat("w", 300))
	}
	s.Close()
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	want := read(t, s.path)
	path := filepath.Join(t.TempDir(), "damaged")
	looks := func(content []byte) (problems []string, records map[string]string) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := Examine(path, func(problem string) { problems = append(problems, problem) })
		if err != nil {
			return []string{err.Error()}, nil
		}
		if store == nil {
			if len(problems) == 0 {
				t.Fatal("neither a store nor a reason")
			}
			return problems, nil
		}
		store.Close()
		return nil, read(t, path)
	}
	page := os.Getpagesize()
	m, err := readMeta(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	end := int(m.end) * page

	for cut := 0; cut < end; cut += page/2 + 1 {
		if problems, _ := looks(whole[:cut]); problems == nil {
			t.Errorf("cut to %d of %d bytes it passes", cut, end)
		}
	}
	// Every bit of what is not a value: bbolt has no checksums for those, but the
	// Keyring has.
	flips, refused := 0, 0
	for at := 2 * page; at < end; at += page {
		for offset := 0; offset < 16+8*16; offset++ {
			content := bytes.Clone(whole)
			content[at+offset] ^= 1 << (offset % 8)
			flips++
			problems, records := looks(content)
			if problems != nil {
				refused++
				continue
			}
			// What passes holds all keys: the bit was in a free page, or in a
			// value.
			if len(records) != len(want) {
				t.Errorf("bit %d of byte %d of page %d: %d records of %d", offset%8, offset, at/page, len(records), len(want))
			}
		}
	}
	if refused == 0 || refused == flips {
		t.Errorf("%d of %d flipped files were refused: the test has lost its grip", refused, flips)
	}
	for at := 2 * page; at < end; at += page {
		for name, damage := range map[string][]byte{"zeros": make([]byte, page), "ones": bytes.Repeat([]byte{0xff}, page)} {
			content := bytes.Clone(whole)
			copy(content[at:], damage)
			if problems, records := looks(content); problems == nil && len(records) != len(want) {
				t.Errorf("page %d, %s: %d records of %d", at/page, name, len(records), len(want))
			}
		}
	}
	if problems, records := looks(whole); problems != nil || len(records) != len(want) {
		t.Errorf("the whole file is refused: %q", problems)
	}
}

func TestARewrittenStoreHasTheSameRecordsInLessRoom(t *testing.T) {
	s := open(t)
	s.fill(3000)
	if err := s.Update(context.Background(), func(tx apikey.Tx) (err error) {
		for i := range 2900 {
			err = errors.Join(err, tx.Delete(apikey.TableKeys, fmt.Appendf(nil, "%06d", i)))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	how := storage.Rewriting{Replace: true, Aside: s.path + ".old"}
	if err := Rewrite(context.Background(), s.path, s.path, how, nil); !errors.Is(err, storage.ErrInUse) {
		t.Errorf("while it is in use: %v", err)
	}
	s.Close()
	want := read(t, s.path)
	before, _ := os.ReadFile(s.path)
	if err := Rewrite(context.Background(), s.path, s.path, how, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() > int64(len(before)/4) {
		t.Errorf("%v, mode %v, %d bytes of %d", err, info.Mode(), info.Size(), len(before))
	}
	if got := read(t, s.path); len(got) != 100 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d records of %d", len(got), len(want))
	}
	if aside, err := os.ReadFile(how.Aside); err != nil || !bytes.Equal(aside, before) {
		t.Errorf("the old file was not kept: %v", err)
	}
}

func TestARewritingThatFailsLeavesAllAsItWas(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, path := range []string{from, to} {
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		faulty{s, t}.mustPut("a", path)
		s.Close()
	}
	bad := filepath.Join(dir, "bad")
	content, _ := os.ReadFile(from)
	if err := os.WriteFile(bad, content[:len(content)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(to)
	no := errors.New("no")
	refuse := func(apikey.Store) error { return no }
	for name, test := range map[string]struct {
		from string
		how  storage.Rewriting
		do   func(apikey.Store) error
	}{
		"there is one":      {from, storage.Rewriting{}, nil},
		"the change fails":  {from, storage.Rewriting{Replace: true, Aside: to + ".old"}, refuse},
		"it is cut off":     {bad, storage.Rewriting{Replace: true, Aside: to + ".old"}, nil},
		"it is not there":   {from + "x", storage.Rewriting{Replace: true, Aside: to + ".old"}, nil},
		"it cannot be kept": {from, storage.Rewriting{Replace: true, Aside: bad}, nil},
	} {
		if err := Rewrite(context.Background(), test.from, to, test.how, test.do); err == nil {
			t.Errorf("%s: it was done", name)
		}
		if after, _ := os.ReadFile(to); !bytes.Equal(before, after) {
			t.Errorf("%s: the file has changed", name)
		}
		if files, _ := os.ReadDir(dir); len(files) != 3 {
			t.Errorf("%s: it left %v", name, files)
		}
	}
	if err := Rewrite(context.Background(), from, to, storage.Rewriting{Replace: true}, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, to); got["keys a"] != from {
		t.Errorf("it has %v", got)
	}
}

func TestARewritingWhoseNameIsNotDurableSaysThatItIsInItsPlace(t *testing.T) {
	dir := t.TempDir()
	fresh, to := filepath.Join(dir, "fresh"), filepath.Join(dir, "to")
	if err := os.WriteFile(fresh, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := putInPlace(fresh, to, storage.Rewriting{}, func(*os.File) error { return errIO })
	if !errors.Is(err, errIO) || !strings.Contains(err.Error(), "it is in its place") {
		t.Errorf("answered %v", err)
	}
	if content, err := os.ReadFile(to); string(content) != "new" {
		t.Errorf("it is not in its place: %q, %v", content, err)
	}
}
