package storagetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

var reading = []guarantee{
	{"an absent key reads as nil", func(t *testing.T, s kit) {
		s.want(t, keys, "a", absent)
		s.put(t, keys, "b", "1")
		for _, key := range []string{"a", "c", "bb", "", strings.Repeat("b", maxKey+1)} {
			s.want(t, keys, key, absent)
		}
	}},
	{"an empty value is a value", func(t *testing.T, s kit) {
		s.put(t, keys, "empty", "")
		s.update(t, func(tx apikey.Tx) error {
			if err := tx.Put(keys, []byte("nil"), nil); err != nil {
				return err
			}
			if got, err := get(tx, keys, "nil"); got != "" || err != nil {
				t.Errorf("within its update an empty value reads as %q, %v", got, err)
			}
			return nil
		})
		s.want(t, keys, "empty", "")
		s.want(t, keys, "nil", "")
		if got, want := s.scan(t, keys, apikey.Range{}), []string{"empty=", "nil="}; !slices.Equal(got, want) {
			t.Errorf("a scan visits %q, want %q", got, want)
		}
	}},
	{"tables are separate", func(t *testing.T, s kit) {
		for _, table := range apikey.Tables() {
			s.put(t, table, "key", table.String())
		}
		s.delete(t, usage, "key")
		for _, table := range apikey.Tables() {
			want := table.String()
			if table == usage {
				want = absent
			}
			s.want(t, table, "key", want)
			if got := len(s.scan(t, table, apikey.Range{})); got > 1 {
				t.Errorf("a scan of %s visits %d records", table, got)
			}
		}
	}},
	{"a scan visits keys in the order of their bytes", func(t *testing.T, s kit) {
		var sorted, shuffled []string
		for _, key := range []string{"\x00", "\x00\x00", "\x00\xff", "\x01", "A", "a", "a\x00", "a\x00a", "aa", "ab", "b", "\x7f", "\x80", "é", "\xff", "\xff\xff"} {
			sorted = append(sorted, key+"=")
			shuffled = append(shuffled, key, "")
		}
		for i := 0; i+6 <= len(shuffled); i += 4 {
			shuffled[i], shuffled[i+4] = shuffled[i+4], shuffled[i]
		}
		s.put(t, keys, shuffled...)
		if got := s.scan(t, keys, apikey.Range{}); !slices.Equal(got, sorted) {
			t.Errorf("ascending: %q, want %q", got, sorted)
		}
		slices.Reverse(sorted)
		if got := s.scan(t, keys, apikey.Range{Reverse: true}); !slices.Equal(got, sorted) {
			t.Errorf("descending: %q, want %q", got, sorted)
		}
	}},
	{"a scan visits from and stops before to", func(t *testing.T, s kit) {
		s.put(t, keys, "b", "", "d", "", "dd", "", "f", "")
		for _, c := range []struct{ name, from, to, want string }{
			{"everything", "", "", "b= d= dd= f="},
			{"from a key", "d", "", "d= dd= f="},
			{"from between keys", "c", "", "d= dd= f="},
			{"from after the last", "g", "", ""},
			{"to a key", "", "dd", "b= d="},
			{"to between keys", "", "e", "b= d= dd="},
			{"to before the first", "", "a", ""},
			{"to after the last", "", "g", "b= d= dd= f="},
			{"between two keys", "b", "f", "b= d= dd="},
			{"a prefix", "d", "e", "d= dd="},
			{"an empty range", "d", "d", ""},
			{"a range without keys", "de", "e", ""},
			{"a range upside down", "f", "b", ""},
		} {
			r := apikey.Range{From: []byte(c.from), To: []byte(c.to)}
			want := strings.Fields(c.want)
			if got := s.scan(t, keys, r); !slices.Equal(got, want) {
				t.Errorf("%s, ascending: %q, want %q", c.name, got, want)
			}
			r.Reverse = true
			slices.Reverse(want)
			if got := s.scan(t, keys, r); !slices.Equal(got, want) {
				t.Errorf("%s, descending: %q, want %q", c.name, got, want)
			}
		}
	}},
	{"a scan of many records misses none and repeats none", func(t *testing.T, s kit) {
		const n = 2500
		var want []string
		s.update(t, func(tx apikey.Tx) error {
			want = nil
			for i := range n {
				key := fmt.Sprintf("%06d", i)
				want = append(want, key+"="+key)
				if err := tx.Put(keys, []byte(key), []byte(key)); err != nil {
					return err
				}
			}
			return nil
		})
		for _, limit := range []int{0, 1, 7, n} {
			r := apikey.Range{From: []byte("000100"), To: []byte("002400"), Limit: limit}
			if got := s.scan(t, keys, r); !slices.Equal(got, want[100:2400]) {
				t.Errorf("with limit %d a scan visits %d records, want the %d of the range in order", limit, len(got), 2300)
			}
			r.Reverse = true
			got := s.scan(t, keys, r)
			slices.Reverse(got)
			if !slices.Equal(got, want[100:2400]) {
				t.Errorf("with limit %d a scan backwards visits %d records, want the %d of the range in order", limit, len(got), 2300)
			}
		}
	}},
	{"a scan ends when its caller has enough", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "", "b", "", "c", "")
		for _, r := range []apikey.Range{{}, {Reverse: true}, {Limit: 1}, {Limit: 3}} {
			visits := 0
			s.view(t, func(reader apikey.Reader) error {
				visits = 0
				return reader.Scan(keys, r, func(_, _ []byte) bool {
					visits++
					return visits < 2
				})
			})
			if visits != 2 {
				t.Errorf("%+v: %d visits, want 2", r, visits)
			}
		}
	}},
	{"a scan may be nested and may read", func(t *testing.T, s kit) {
		s.put(t, keys, "a", "1", "b", "2")
		s.put(t, usage, "1", "x", "2", "y")
		var got []string
		s.view(t, func(r apikey.Reader) error {
			got = nil
			var failed error
			err := r.Scan(keys, apikey.Range{}, func(_, value []byte) bool {
				text, err := get(r, usage, string(value))
				got = append(got, text)
				failed = err
				if err == nil {
					failed = r.Scan(usage, apikey.Range{From: value}, func(key, _ []byte) bool {
						got = append(got, string(key))
						return true
					})
				}
				return failed == nil
			})
			if err == nil {
				err = failed
			}
			return err
		})
		if want := []string{"x", "1", "2", "y", "2"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}},
	{"what a View reads stays as it was until it ends", func(t *testing.T, s kit) {
		value := strings.Repeat("v", 3000)
		s.put(t, keys, "a", value, "b", value)
		viewing, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			<-viewing
			for i := range 20 {
				s.put(t, keys, "a", fmt.Sprint(i), "b", strings.Repeat("w", 3000), fmt.Sprint(i), value)
				s.delete(t, keys, "b")
			}
		}()
		s.view(t, func(r apikey.Reader) error {
			close(viewing)
			a, err := r.Get(keys, []byte("a"))
			if err != nil {
				return err
			}
			read, want := [][]byte{a}, [][]byte{bytes.Clone(a)}
			if err := r.Scan(keys, apikey.Range{}, func(key, value []byte) bool {
				read = append(read, key, value)
				want = append(want, bytes.Clone(key), bytes.Clone(value))
				return true
			}); err != nil {
				return err
			}
			// An update may have to wait until this View has ended, so the
			// View must not wait for one.
			for range 200 {
				for i := range read {
					if !bytes.Equal(read[i], want[i]) {
						t.Errorf("%s became %s", brief(string(want[i])), brief(string(read[i])))
					}
				}
				if again, err := r.Get(keys, []byte("a")); err != nil || !bytes.Equal(again, a) {
					t.Errorf("the second Get returned %s, %v", brief(string(again)), err)
				}
			}
			return nil
		})
		<-done
	}},
}
