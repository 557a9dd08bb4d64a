package tools

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/caddyserver/xcaddy"
)

func readBuilder(t *testing.T, file string) xcaddy.Builder {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var b xcaddy.Builder
	if err := dec.Decode(&b); err != nil {
		t.Fatalf("%s is not xcaddy's own schema: %v", file, err)
	}
	return b
}

// go test does not watch files outside a module, so a cached pass can be older than
// xcaddy.json; cmd/build, where it is watched, reads the file by the same fields.
func TestXcaddyJSONIsXcaddysOwnSchema(t *testing.T) {
	b := readBuilder(t, "../xcaddy.json")
	if b.CaddyVersion == "" || len(b.Plugins) == 0 || len(b.Replacements) == 0 {
		t.Errorf("xcaddy.json lacks the version, the plugin or its replacement: %+v", b)
	}
}

// cmd/build must not import xcaddy, so it repeats the Builder's fields. Its tests
// show that it knows all fields of this file, and this test that the file has all
// fields of the Builder.
func TestCmdBuildKnowsEveryFieldOfXcaddysBuilder(t *testing.T) {
	b := readBuilder(t, "testdata/every-field.json")
	requireSet(t, "", reflect.ValueOf(b))
}

func requireSet(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.Tag.Get("json") != "-" {
				requireSet(t, path+"."+field.Name, v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Len() == 0 {
			t.Errorf("every-field.json does not set %s", path)
			return
		}
		requireSet(t, path, v.Index(0))
	default:
		if v.IsZero() {
			t.Errorf("every-field.json does not set %s", path)
		}
	}
}
