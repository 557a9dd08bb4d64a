package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

var writing = []guarantee{
	{"the last write of a key counts", func(t *testing.T, s kit) {
		s.put(t, keys, "changed", "1", "deleted", "1", "back", "1", "kept", "1")
		s.update(t, func(tx apikey.Tx) error {
			return errors.Join(
				tx.Put(keys, []byte("changed"), []byte("2")), tx.Put(keys, []byte("changed"), []byte("3")),
				tx.Put(keys, []byte("deleted"), []byte("2")), tx.Delete(keys, []byte("deleted")),
				tx.Delete(keys, []byte("back")), tx.Put(keys, []byte("back"), []byte("2")),
				tx.Put(keys, []byte("never"), []byte("1")), tx.Delete(keys, []byte("never")),
			)
		})
		want := []string{"back=2", "changed=3", "kept=1"}
		if got := s.scan(t, keys, apikey.Range{}); !slices.Equal(got, want) {
			t.Errorf("left %q, want %q", got, want)
		}
	}},
	{"deleting what is not there is no error", func(t *testing.T, s kit) {
		s.delete(t, keys, "a")
		s.put(t, keys, "b", "1")
		s.delete(t, keys, "a")
		s.delete(t, keys, "c")
		s.want(t, keys, "b", "1")
	}},
	{"an update that writes nothing succeeds", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1")
		read := ""
		s.update(t, func(tx apikey.Tx) (err error) {
			read, err = get(tx, keys, "a")
			return err
		})
		if read != "1" {
			t.Errorf("it read %q, want 1", read)
		}
	}},
	{"an update reads what it wrote", func(t *testing.T, s kit) {
		s.put(t, keys, "old", "1", "doomed", "1")
		s.update(t, func(tx apikey.Tx) error {
			if err := errors.Join(
				tx.Put(keys, []byte("old"), []byte("2")),
				tx.Put(keys, []byte("new"), []byte("3")),
				tx.Delete(keys, []byte("doomed")),
			); err != nil {
				return err
			}
			for key, want := range map[string]string{"old": "2", "new": "3", "doomed": absent} {
				if got, err := get(tx, keys, key); got != want || err != nil {
					t.Errorf("within the update %s is %q, %v; want %q", key, got, err, want)
				}
			}
			got, err := get(tx, usage, "new")
			if got != absent {
				t.Errorf("another table has it too: %q", got)
			}
			return err
		})
	}},
	{"an update scans what others wrote before", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1", "b", "2", "c", "3")
		s.delete(t, keys, "b")
		for _, r := range []apikey.Range{{}, {Reverse: true}} {
			var got []string
			s.update(t, func(tx apikey.Tx) error {
				got = nil
				return tx.Scan(keys, r, func(key, value []byte) bool {
					got = append(got, string(key)+"="+string(value))
					return true
				})
			})
			slices.Sort(got)
			if want := []string{"a=1", "c=3"}; !slices.Equal(got, want) {
				t.Errorf("%+v: %q, want %q", r, got, want)
			}
		}
	}},
	{"an update may write while it scans", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1", "b", "2", "c", "3")
		s.update(t, func(tx apikey.Tx) error {
			var failed error
			err := tx.Scan(keys, apikey.Range{To: []byte("d")}, func(key, value []byte) bool {
				failed = errors.Join(failed, tx.Delete(keys, key),
					tx.Put(keys, append([]byte("moved "), key...), value))
				return true
			})
			return errors.Join(err, failed)
		})
		want := []string{"moved a=1", "moved b=2", "moved c=3"}
		if got := s.scan(t, keys, apikey.Range{}); !slices.Equal(got, want) {
			t.Errorf("left %q, want %q", got, want)
		}
	}},
	{"what is put is copied", func(t *testing.T, s kit) {
		s.put(t, keys, "doomed", "1")
		s.update(t, func(tx apikey.Tx) error {
			key, value, doomed := []byte("k0"), []byte("v0"), []byte("doomed")
			for i := range 10 {
				key[1], value[1] = byte('0'+i), byte('0'+i)
				if err := tx.Put(keys, key, value); err != nil {
					return err
				}
			}
			err := tx.Delete(keys, doomed)
			copy(key, "xx")
			copy(value, "xx")
			copy(doomed, "k5....")
			return err
		})
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprintf("k%d=v%d", i, i))
		}
		if got := s.scan(t, keys, apikey.Range{}); !slices.Equal(got, want) {
			t.Errorf("left %q, want %q", got, want)
		}
	}},
	{"what an update reads stays as it was until it ends", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "old")
		s.update(t, func(tx apikey.Tx) error {
			old, err := tx.Get(keys, []byte("a"))
			if err != nil {
				return err
			}
			if err := tx.Put(keys, []byte("a"), []byte("new")); err != nil {
				return err
			}
			first, err := tx.Get(keys, []byte("a"))
			if err != nil {
				return err
			}
			if err := tx.Put(keys, []byte("a"), []byte("NEW")); err != nil {
				return err
			}
			if !bytes.Equal(old, []byte("old")) || !bytes.Equal(first, []byte("new")) {
				t.Errorf("the values became %q and %q", old, first)
			}
			return tx.Delete(keys, []byte("a"))
		})
		s.want(t, keys, "a", absent)
	}},
	{"records of every promised size are kept whole", func(t *testing.T, s kit) {
		for _, keySize := range []int{1, 2, 255, 256, maxKey} {
			for _, valueSize := range []int{0, 1, 4095, 4096, 4097, maxValue - 1, maxValue} {
				key := strings.Repeat("\xff", keySize-1) + string(rune('a'+valueSize%7))
				value := strings.Repeat("\x00v", valueSize/2) + strings.Repeat("!", valueSize%2)
				s.put(t, keys, key, value)
				s.want(t, keys, key, value)
			}
		}
	}},
	{"records beyond the promised sizes are refused", func(t *testing.T, s kit) {
		for _, c := range []struct {
			name       string
			key, value int
		}{
			{"a key of no bytes", 0, 1},
			{"a key of one byte too many", maxKey + 1, 1},
			{"a value of one byte too many", 1, maxValue + 1},
		} {
			err := s.Update(context.Background(), func(tx apikey.Tx) error {
				return tx.Put(keys, bytes.Repeat([]byte("k"), c.key), make([]byte, c.value))
			})
			if err == nil {
				t.Errorf("%s was taken", c.name)
			}
			if errors.Is(err, apikey.ErrUnavailable) || errors.Is(err, apikey.ErrOutcomeUnknown) {
				t.Errorf("%s: %v; it is the caller's fault, not the store's", c.name, err)
			}
		}
		if got := s.scan(t, keys, apikey.Range{}); len(got) > 0 {
			t.Errorf("left %d records", len(got))
		}
	}},
	{"a failed update leaves nothing", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1", "b", "1")
		err := s.Update(context.Background(), func(tx apikey.Tx) error {
			if err := errors.Join(tx.Put(keys, []byte("a"), []byte("2")), tx.Delete(keys, []byte("b")),
				tx.Put(usage, []byte("c"), []byte("2"))); err != nil {
				return err
			}
			return errOurs
		})
		if err == nil {
			t.Error("it succeeded")
		}
		s.want(t, keys, "a", "1")
		s.want(t, keys, "b", "1")
		s.want(t, usage, "c", absent)
	}},
	{"the error of a function comes back as it is", func(t *testing.T, s kit) {
		for _, want := range []error{
			errOurs,
			fmt.Errorf("wrapping: %w", errOurs),
			fmt.Errorf("%w: says the function", apikey.ErrUnavailable),
			fmt.Errorf("%w: says the function", apikey.ErrOutcomeUnknown),
			context.Canceled,
		} {
			if got := s.View(context.Background(), func(apikey.Reader) error { return want }); got != want {
				t.Errorf("View returned %v, want %v itself", got, want)
			}
			if got := s.Update(context.Background(), func(tx apikey.Tx) error {
				if err := tx.Put(keys, []byte("a"), nil); err != nil {
					return err
				}
				return want
			}); got != want {
				t.Errorf("Update returned %v, want %v itself", got, want)
			}
		}
		s.want(t, keys, "a", absent)
	}},
}
