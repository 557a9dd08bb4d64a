package apikey

import (
	"fmt"
	"hash/crc32"
	"regexp"
	"strings"
	"testing"
	"time"
)

var published = regexp.MustCompile(`\bak_[0-9A-Za-z]{71}\b`)

var akOnly = []string{"ak_"}

// assemble writes a token by the book, for digits of any kind.
func assemble(prefix, idDigits, secret string) string {
	body := prefix + "_" + idDigits + secret
	sum := crc32.ChecksumIEEE([]byte(body))
	return body + string(appendBase62(nil, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checksumDigits))
}

func TestTokenHasThePublishedShape(t *testing.T) {
	for range 1000 {
		id := newID(time.Now())
		token, secret := newToken("ak", id)
		for _, around := range []string{"%s", "Bearer %s", `{"key":"%s"}`, "%s.", "k=%s&x"} {
			if got := published.FindString(fmt.Sprintf(around, token)); got != token {
				t.Fatalf("the published pattern finds %q in %q", got, fmt.Sprintf(around, token))
			}
		}
		if got := assemble("ak", string(id.appendDigits(nil)), secret); got != token || len(secret) != secretDigits {
			t.Fatalf("token %q, want %q", token, got)
		}
		if gotID, gotSecret, reason := parseToken(token, akOnly); gotID != id || gotSecret != secret || reason != ReasonNone {
			t.Fatalf("%q parses as %s, %q, %s", token, gotID, gotSecret, reason)
		}
	}
}

// A token that somebody holds must be good for ever: this one must parse under
// every later version.
func TestTokenFormatHasNotChanged(t *testing.T) {
	const token = "ak_030IJFsgMFplZd0jdY6OqP0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg3TbHGB"
	id, secret, reason := parseToken(token, akOnly)
	if reason != ReasonNone || fmt.Sprintf("%x", id[:]) != "0197a5b4c3d27e8f9a0b1c2d3e4f5061" || secret != alphabet[:secretDigits] {
		t.Errorf("%x %q %s", id[:], secret, reason)
	}
}

func TestMistypedTokenIsRefusedByItsTextAlone(t *testing.T) {
	token, _ := newToken("ak", newID(time.Now()))
	tried := 0
	refuse := func(what, typed string) {
		t.Helper()
		if typed == token {
			return
		}
		tried++
		if _, secret, reason := parseToken(typed, akOnly); reason != ReasonChecksum && reason != ReasonMalformed || secret != "" {
			t.Errorf("%s: %q is %s", what, typed, reason)
		}
	}
	for i := range len(token) {
		refuse("removed", token[:i]+token[i+1:])
		refuse("cut", token[:i])
		refuse("cut in front", token[i+1:])
		for c := range 256 {
			refuse("changed", token[:i]+string([]byte{byte(c)})+token[i+1:])
			refuse("added", token[:i]+string([]byte{byte(c)})+token[i:])
		}
		for j := range i {
			swapped := []byte(token)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			refuse("swapped", string(swapped))
		}
		flipped := []byte(token)
		if flipped[i] ^= 0x20; flipped[i] != '_'^0x20 {
			refuse("case flipped", string(flipped))
		}
	}
	for c := range 256 {
		refuse("added at the end", token+string([]byte{byte(c)}))
	}
	refuse("doubled", token+token)
	refuse("upper case", strings.ToUpper(token))
	refuse("full width", strings.Replace(token, "k", "ｋ", 1))
	refuse("quoted", `"`+token+`"`)
	t.Logf("%d mistyped tokens refused", tried)
}

func TestChecksumIsComparedAsANumberOfFixedWidth(t *testing.T) {
	// The smallest number of six digits that is 2^32 larger would be the same
	// checksum to a program that cuts it to 32 bits.
	for range 1000 {
		token, _ := newToken("ak", newID(time.Now()))
		_, sum, _ := parseUint128(token[len(token)-checksumDigits:])
		sum += 1 << 32
		wider := appendBase62(nil, []byte{byte(sum >> 32), byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checksumDigits)
		if _, _, reason := parseToken(token[:len(token)-checksumDigits]+string(wider), akOnly); reason != ReasonChecksum {
			t.Fatalf("a checksum of 33 bits is %s", reason)
		}
	}
}

func TestRightChecksumOverWrongDigitsIsMalformed(t *testing.T) {
	id, secret := "030IJFsgMFplZd0jdY6OqP", alphabet[:secretDigits]
	for name, token := range map[string]string{
		"id above 128 bits":    assemble("ak", strings.Repeat("z", idDigits), secret),
		"id of other letters":  assemble("ak", id[:21]+"-", secret),
		"secret one shorter":   assemble("ak", id, secret[:42]),
		"secret one longer":    assemble("ak", id, secret+"0"),
		"another brand":        assemble("bk", id, secret),
		"brand in other case":  assemble("AK", id, secret),
		"no brand":             assemble("", id, secret),
		"brand before brand":   assemble("ak_ak", id, secret),
		"brand without border": assemble("xak", id, secret),
	} {
		if got, _, reason := parseToken(token, akOnly); reason != ReasonMalformed || !got.IsZero() {
			t.Errorf("%s: %q is %s", name, token, reason)
		}
	}
}

func TestEveryConfiguredPrefixIsAcceptedAndNoOther(t *testing.T) {
	prefixes := []string{"ak_", "a_", "old_ak_", "ak_live_"}
	for _, prefix := range []string{"ak", "a", "old_ak", "ak_live"} {
		token, _ := newToken(prefix, newID(time.Now()))
		if _, _, reason := parseToken(token, prefixes); reason != ReasonNone {
			t.Errorf("%q is %s", token, reason)
		}
		if _, _, reason := parseToken(token, []string{"x_"}); reason != ReasonMalformed {
			t.Errorf("%q is %s where its prefix is not configured", token, reason)
		}
		// The checksum covers the prefix: a token cannot change brands.
		if _, _, reason := parseToken("a"+token[len(prefix):], prefixes); prefix != "a" && reason != ReasonChecksum {
			t.Errorf("%q under another prefix is %s", token, reason)
		}
	}
}

func TestCheckPrefix(t *testing.T) {
	for prefix, ok := range map[string]bool{
		"ak": true, "a": true, "AK": true, "sk_live": true, "a1": true, "1a": true, "a__b": true, strings.Repeat("a", 16): true,
		"": false, strings.Repeat("a", 17): false, "_ak": false, "ak_": false, "_": false, "a-b": false, "a b": false, "a.b": false,
		"é": false, "a\x00": false, "a\n": false,
	} {
		if err := CheckPrefix(prefix); (err == nil) != ok {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}

func TestTokenIsFoundInText(t *testing.T) {
	token, _ := newToken("ak", newID(time.Now()))
	own, _ := newToken("a_a", newID(time.Now()))
	mistyped := token[:len(token)-1] + "0"
	for name, c := range map[string]struct {
		text  string
		found bool
	}{
		"the token":                    {token, true},
		"in a sentence":                {"key is " + token + ", keep it", true},
		"mistyped":                     {mistyped, true},
		"after its own prefix":         {"ak_" + token, true},
		"after many prefixes":          {strings.Repeat("ak_", 50) + token, true},
		"after letters":                {"xx" + token, true},
		"before letters":               {token + "xx", true},
		"prefix that overlaps itself":  {"a_" + own, true},
		"without its last character":   {token[:len(token)-1], true},
		"without its checksum":         {token[:len(token)-checksumDigits], true},
		"half of its secret":           {token[:len("ak_")+tellingDigits], true},
		"less than half of it":         {token[:len("ak_")+tellingDigits-1], false},
		"without its first character":  {token[1:], false},
		"the public start":             {token[:len("ak_")+idDigits], false},
		"broken by a space":            {token[:40] + " " + token[40:73], false},
		"a prefix alone":               {"ak_", false},
		"another brand":                {"bk_" + token[3:], false},
		"nothing":                      {"", false},
		"a name that begins like ours": {"ak_production", false},
	} {
		if got := containsToken(c.text, []string{"ak_", "a_a_"}); got != c.found {
			t.Errorf("%s: found is %v in %q", name, got, c.text)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	token, _ := newToken("ak", ID{6: 0x70, 8: 0x80, 15: 9})
	old, _ := newToken("old_ak", ID{6: 0x70, 8: 0x80, 15: 9})
	for _, seed := range []string{
		token, old, "", "ak_", token[1:], token + "0", strings.Repeat("z", 74), assemble("ak", strings.Repeat("z", 22), strings.Repeat("0", 43)),
		"ak_" + strings.Repeat("\x00", 71), "ak_" + strings.Repeat("é", 36), strings.Repeat("ak_", 100),
	} {
		f.Add(seed)
	}
	prefixes := []string{"ak_", "old_ak_"}
	f.Fuzz(func(t *testing.T, token string) {
		// Both as it is and with the checksum that it would need to get past it.
		texts := []string{token}
		for _, prefix := range prefixes {
			if body, ours := strings.CutPrefix(token, prefix); ours && len(body) == bodyDigits {
				texts = append(texts, assemble(prefix[:len(prefix)-1], body[:idDigits], body[idDigits:idDigits+secretDigits]))
			}
		}
		for _, text := range texts {
			id, secret, reason := parseToken(text, prefixes)
			switch reason {
			case ReasonNone:
				prefix := text[:len(text)-bodyDigits-1]
				if got := assemble(prefix, string(id.appendDigits(nil)), secret); got != text {
					t.Errorf("%q is read as %q", text, got)
				}
			case ReasonMalformed, ReasonChecksum:
				if !id.IsZero() || secret != "" {
					t.Errorf("%q is refused and gives %s, %q", text, id, secret)
				}
			default:
				t.Errorf("%q is %s", text, reason)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	token, _ := newToken("ak", newID(time.Now()))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, reason := parseToken(token, akOnly); reason != ReasonNone {
			b.Fatal(reason)
		}
	}
}
