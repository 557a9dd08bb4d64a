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
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestAFileThatIsCutOffWhileInUseIsUnavailable(t *testing.T) {
	for _, pages := range []int64{0, 1, 2, 3, 10, 40} {
		t.Run(fmt.Sprintf("to %d pages", pages), func(t *testing.T) {
			s := open(t)
			s.fill(1000)
			if err := os.Truncate(s.path, pages*int64(os.Getpagesize())); err != nil {
				t.Fatal(err)
			}
			s.unavailable("cut off")
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
	}
}

// The system fills up the last page of a file with zeros, which would look as if
// records were not there, or were others.
func TestWhatIsReadOfAFileThatIsCutOffIsRightOrUnavailable(t *testing.T) {
	const keys = 30
	value := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 10+i*i*10) }
	whole := open(t)
	for i := range keys {
		whole.mustPut(fmt.Sprintf("%06d", i), value(i))
	}
	content, err := os.ReadFile(whole.path)
	if err != nil {
		t.Fatal(err)
	}
	var used int64
	if err := whole.db.Load().bolt.View(func(tx *bolt.Tx) error { used = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	right, refused := 0, 0
	for size := 2*os.Getpagesize() + 100; size < int(used); size += 1500 {
		path := filepath.Join(t.TempDir(), "keys.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		reads := faulty{s, t}
		reads.want("000000", value(0)) // with a transaction that is kept
		if err := os.Truncate(path, int64(size)); err != nil {
			t.Fatal(err)
		}
		for i := range keys {
			switch got, err := reads.get(fmt.Sprintf("%06d", i)); {
			case err == nil && got == value(i):
				right++
			case errors.Is(err, apikey.ErrUnavailable):
				refused++
			default:
				t.Errorf("cut off at %d of %d bytes: key %d is %d bytes, %v", size, used, i, len(got), err)
			}
		}
		if err := s.View(context.Background(), func(r apikey.Reader) error {
			return r.Scan(apikey.TableKeys, apikey.Range{}, func(_, _ []byte) bool { return true })
		}); !errors.Is(err, apikey.ErrUnavailable) {
			t.Errorf("cut off at %d of %d bytes: a scan ended with %v", size, used, err)
		}
		s.Close()
	}
	if right == 0 || refused == 0 {
		t.Errorf("%d reads were right, %d were refused", right, refused)
	}
}

// overwrite writes into the file, as another program would.
func (s faulty) overwrite(at int, content []byte) {
	s.t.Helper()
	f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, int64(at)); err != nil {
		s.t.Fatal(err)
	}
}

func TestLosingTheMetaPagesWhileInUseIsSurvivedAndMended(t *testing.T) {
	for name, notice := range map[string]func(s faulty) error{
		"noticed by View":   func(s faulty) error { _, err := s.get("a"); return err },
		"noticed by Update": func(s faulty) error { return s.put("a", "2") },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.mustPut("a", "1")
			whole, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			metaPages := 2 * os.Getpagesize()
			s.overwrite(0, make([]byte, metaPages))
			if err := notice(s); !errors.Is(err, apikey.ErrUnavailable) {
				t.Errorf("answered %v", err)
			}
			s.unavailable("restore a backup")
			s.overwrite(0, whole[:metaPages])
			s.aSecondPasses()
			s.want("a", "1")
			s.mustPut("b", "2")
			s.overwrite(0, make([]byte, metaPages))
			s.unavailable("damaged")
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
			s.overwrite(0, whole[:metaPages])
			again, err := Open(s.path)
			if err != nil {
				t.Fatalf("the mended file is refused: %v", err)
			}
			faulty{again, t}.want("a", "1")
			again.Close()
		})
	}
}

// bbolt panics with its locks held, for which a commit would wait between its two
// syncs.
func TestAViewThatFindsTheMetaPagesLostHoldsUpNoCommit(t *testing.T) {
	s := open(t)
	s.mustPut("a", "1")
	s.nextCommit(func(tx *bolt.Tx) error {
		s.overwrite(0, make([]byte, 2*os.Getpagesize()))
		if _, err := s.get("a"); !errors.Is(err, apikey.ErrUnavailable) {
			t.Errorf("View answered %v", err)
		}
		free := make(chan struct{})
		go func() {
			_ = guard(func() error { return tx.DB().View(func(*bolt.Tx) error { return nil }) })
			close(free)
		}()
		select {
		case <-free:
		case <-time.After(10 * time.Second):
			t.Error("bbolt is locked")
		}
		return errIO
	})
	if err := s.put("b", "1"); !errors.Is(err, apikey.ErrOutcomeUnknown) {
		t.Errorf("Update answered %v, want unknown", err)
	}
}

func TestAFunctionThatTouchesWhatWasCutOffFailsAndHarmsNobody(t *testing.T) {
	s := open(t)
	s.fill(1000)
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	touch := func(r apikey.Reader) error {
		value, err := r.Get(apikey.TableKeys, []byte("000900"))
		if err := errors.Join(err, os.Truncate(s.path, int64(2*os.Getpagesize()))); err != nil {
			return err
		}
		if bytes.Contains(value, []byte("x")) {
			t.Error("what was cut off is there")
		}
		return nil
	}
	if err := s.View(context.Background(), touch); !errors.Is(err, apikey.ErrUnavailable) {
		t.Errorf("View answered %v", err)
	}
	if err := os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(context.Background(), func(tx apikey.Tx) error { return touch(tx) }); !errors.Is(err, apikey.ErrUnavailable) {
		t.Errorf("Update answered %v", err)
	}
	if err := os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s.want("000900", fmt.Sprintf("%0500d", 900))
	s.mustPut("a", "1")
}

func TestADamagedPageIsAnErrorAndNeverAWrongAnswer(t *testing.T) {
	s := open(t)
	s.fill(60)
	for i := range 8 { // some pages become free
		s.mustPut(fmt.Sprintf("%06d", i*7), strings.Repeat("w", 500))
	}
	want := map[string]string{}
	if err := s.View(context.Background(), func(r apikey.Reader) error {
		return r.Scan(apikey.TableKeys, apikey.Range{}, func(key, value []byte) bool {
			want[string(key)] = string(value)
			return true
		})
	}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	refused, failed, fine := 0, 0, 0
	// The first two pages are bbolt's meta pages. When the later one is damaged,
	// bbolt takes the other, that is the commit before, as it must after a crash.
	for at := 2 * page; at < len(whole); at += page {
		for name, damaged := range map[string][]byte{
			"zeros":        make([]byte, page),
			"ones":         bytes.Repeat([]byte{0xff}, page),
			"another page": whole[(at+page)%(len(whole)-page):][:page],
		} {
			content := bytes.Clone(whole)
			copy(content[at:], damaged)
			if err := os.WriteFile(s.path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := Open(s.path)
			if err != nil {
				refused++
				continue
			}
			hurt := false
			ours := func(err error) {
				if err != nil {
					hurt = true
					if !errors.Is(err, apikey.ErrUnavailable) {
						t.Errorf("page %d, %s: %v", at/page, name, err)
					}
				}
			}
			f := faulty{again, t}
			for key, value := range want {
				got, err := f.get(key)
				if ours(err); err == nil && got != value {
					t.Errorf("page %d, %s: %s reads as %q", at/page, name, key, got)
				}
			}
			seen := 0
			err = f.View(context.Background(), func(r apikey.Reader) error {
				return r.Scan(apikey.TableKeys, apikey.Range{Reverse: at/page%2 == 0}, func(key, value []byte) bool {
					seen++
					if want[string(key)] != string(value) {
						t.Errorf("page %d, %s: a scan shows %s as %q", at/page, name, key, value)
					}
					return true
				})
			})
			if ours(err); err == nil && seen != len(want) {
				t.Errorf("page %d, %s: a scan shows %d of %d records", at/page, name, seen, len(want))
			}
			for i := 0; i < 60; i += 30 {
				ours(f.put(fmt.Sprintf("%06d", i), "new"))
			}
			if err := f.Close(); err != nil {
				t.Errorf("page %d, %s: closing: %v", at/page, name, err)
			}
			if hurt {
				failed++
			} else {
				fine++
			}
		}
	}
	if refused == 0 || failed == 0 || fine == 0 {
		t.Errorf("%d files were refused, %d failed and %d were fine: the test has lost its grip", refused, failed, fine)
	}
	// No lock is left behind, whatever bbolt did.
	if err := os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.path)
	if err != nil {
		t.Fatalf("the restored file is refused: %v", err)
	}
	faulty{again, t}.want("000000", want["000000"])
	again.Close()
}
