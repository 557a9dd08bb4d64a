package management_test

import (
	"encoding/json"
	"testing"
	"time"
)

// FuzzCreateBody sends bodies that nobody thought of. Every answer is the
// envelope (checkAnswer) and never of 500 or more, and what is accepted is what
// encoding/json reads in the same body.
func FuzzCreateBody(f *testing.F) {
	for _, body := range []string{
		``, `null`, `{}`, `{"name":"first"}`, `{"name":"x",}`, `{"name":"x"}{}`, ` {"name" : "\ud83d\ude00"} `, `{"name":"x","name":"y"}`,
		`{"name":"x","description":"","scope":"read-write","expiresAt":"2099-01-01T00:00:00.5+01:00","serviceAccountId":"ci"}`,
		`{"n\u0061me":"x","scope":null}`, `{"Name":"x"}`, `{"name":"\ud800"}`, "{\"name\":\"\xff\"}", `{"name":[[[[{"a":1}]]]]}`,
		`{"name":"x","userId":"bob"}`, `{"name":"x","expiresAt":"0001-01-01T00:00:00Z"}`, `{"name":"x"} // y`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newService(t)
		a := s.call(t, alice, "POST", "", string(body))
		if a.status >= 500 || len(s.logged) != 0 {
			t.Fatalf("%d, logged %v", a.status, s.logged)
		}
		if a.status != 200 {
			return
		}
		var read map[string]*string
		if err := json.Unmarshal(body, &read); err != nil {
			t.Fatalf("accepted, but encoding/json says %v", err)
		}
		for field, absent := range map[string]any{"name": nil, "description": nil, "scope": "read", "serviceAccountId": nil, "expiresAt": nil} {
			want := absent
			if text := read[field]; text != nil && *text != "" {
				want = *text
			}
			if field == "expiresAt" && want != nil {
				at, err := time.Parse(time.RFC3339Nano, want.(string))
				if err != nil {
					t.Fatalf("accepted, but package time says %v", err)
				}
				want = at.UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
			}
			if a.data[field] != want {
				t.Errorf("%s is %v, encoding/json reads %v", field, a.data[field], want)
			}
			delete(read, field)
		}
		if len(read) != 0 {
			t.Errorf("accepted with %v", read)
		}
	})
}
