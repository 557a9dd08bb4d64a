package apikey

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestUserAgentIsCutAndCleaned(t *testing.T) {
	euro := "€" // three bytes
	for name, c := range map[string]struct{ sent, kept string }{
		"plain":                        {"curl/8.5.0", "curl/8.5.0"},
		"empty":                        {"", ""},
		"256 bytes":                    {strings.Repeat("a", 256), strings.Repeat("a", 256)},
		"257 bytes":                    {strings.Repeat("a", 257), strings.Repeat("a", 256)},
		"16 KiB":                       {strings.Repeat("a", 16<<10), strings.Repeat("a", 256)},
		"letters that fit to the byte": {"a" + strings.Repeat(euro, 85), "a" + strings.Repeat(euro, 85)},
		"a letter cut after one byte":  {strings.Repeat(euro, 86), strings.Repeat(euro, 85)},
		"a letter cut after two":       {"aa" + strings.Repeat(euro, 85), "aa" + strings.Repeat(euro, 84)},
		"four bytes cut after three":   {"a" + strings.Repeat("\U0001f511", 64), "a" + strings.Repeat("\U0001f511", 63)},
		"four bytes cut after one":     {"aaa" + strings.Repeat("\U0001f511", 64), "aaa" + strings.Repeat("\U0001f511", 63)},
		"four bytes that fit":          {strings.Repeat("\U0001f511", 65), strings.Repeat("\U0001f511", 64)},
		"invalid UTF-8":                {"a\xffb\xc0\xafc", "abc"},
		"only continuation bytes":      {strings.Repeat("\x80", 300), ""},
		"cut among broken bytes":       {strings.Repeat("a", 254) + "\xe2\x82\xac", strings.Repeat("a", 254)},
		"control characters":           {"a\r\nb\tc\x00d\x1b[31me\x7ff", "abcd[31mef"},
		"C1":                           {"a\u009b31mb", "a31mb"},
		"right-to-left override":       {"a\u202eb", "ab"},
		"zero width":                   {"a\u200bb\ufeffc", "abc"},
		"line separator":               {"a\u2028b", "ab"},
		"umlauts":                      {"Käthe", "Käthe"},
	} {
		got := cleanUserAgent(c.sent)
		if got != c.kept || len(got) > maxUserAgent || !utf8.ValidString(got) {
			t.Errorf("%s: kept %q, want %q", name, got, c.kept)
		}
	}
}

func FuzzUserAgent(f *testing.F) {
	f.Add("curl/8.5.0")
	f.Add(strings.Repeat("€", 100))
	f.Add("\xff\x00" + strings.Repeat("\U0001f511", 64))
	f.Fuzz(func(t *testing.T, sent string) {
		got := cleanUserAgent(sent)
		if len(got) > maxUserAgent || !utf8.ValidString(got) || cleanUserAgent(got) != got {
			t.Errorf("%q is kept as %q", sent, got)
		}
	})
}

func TestClientsAreToldApart(t *testing.T) {
	seen := make(map[uint64]string)
	for _, low := range []uint64{0, 4, 1 << 63} { // the lowest two bits choose the set
		for _, address := range []string{"", "192.0.2.1", "192.0.2.2", "ua"} {
			for _, agent := range []string{"", "ua", "192.0.2.1", "ub"} {
				hash, name := hashClient(low, address, agent), strings.Join([]string{address, agent}, "|")
				if other, found := seen[hash]; found || hash == clientNone || hash == clientBusy {
					t.Errorf("%s and %s have one hash", name, other)
				}
				seen[hash] = name
			}
		}
	}
}
