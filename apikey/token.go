package apikey

import (
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"strings"
	"unsafe"
)

// The parts of a token after its prefix, all base62 of fixed width:
//
//	ak_ <22: key id> <43: 256 random bits> <6: CRC-32 (IEEE) of all before>
const (
	secretDigits   = 43
	checksumDigits = 6
	bodyDigits     = idDigits + secretDigits + checksumDigits

	// tellingDigits are as much of a token as nobody should see: anybody can
	// compute the checksum, and what is missing of the secret could be guessed.
	// With fewer, more than half of the secret is missing.
	tellingDigits = idDigits + secretDigits/2

	maxPrefix = 16
)

// DefaultPrefix starts the tokens of a gateway that configures no other.
const DefaultPrefix = "ak"

// MaxTokenLength is the longest credential that is looked at, in bytes. It
// bounds what a stranger can make the gateway hash.
const MaxTokenLength = 512

// CheckPrefix says what is wrong with a token prefix, if anything: it must be 1
// to 16 letters, digits and inner underscores, so that a double click selects a
// whole token.
func CheckPrefix(prefix string) error {
	if len(prefix) < 1 || len(prefix) > maxPrefix {
		return fmt.Errorf("a token prefix has 1 to %d characters, %q has %d", maxPrefix, prefix, len(prefix))
	}
	if !isBase62(strings.ReplaceAll(prefix, "_", "0")) || prefix[0] == '_' || prefix[len(prefix)-1] == '_' {
		return fmt.Errorf("token prefix %q: use letters, digits and inner underscores", prefix)
	}
	return nil
}

// newToken makes a token for a key, and returns its secret part too.
func newToken(prefix string, id ID) (token, secret string) {
	var random [32]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	b := make([]byte, 0, len(prefix)+1+bodyDigits)
	b = append(append(b, prefix...), '_')
	b = id.appendDigits(b)
	start := len(b)
	b = appendBase62(b, random[:], secretDigits)
	sum := crc32.ChecksumIEEE(b)
	b = appendBase62(b, []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checksumDigits)
	token = string(b)
	return token, token[start : start+secretDigits]
}

// parseToken splits a token that starts with one of the prefixes, which end
// with their underscore. The reason is ReasonNone when the checksum is right;
// whether there is such a key is another question, and so is whether the secret
// is of digits: one that has a key's digest is.
func parseToken(token string, prefixes []string) (id ID, secret string, _ Reason) {
	at := len(token) - bodyDigits
	if at < 0 || !hasPrefix(token[:at], prefixes) {
		return id, "", ReasonMalformed
	}
	checked := len(token) - checksumDigits
	high, low, ok := parseUint128(token[checked:])
	if !ok || high != 0 {
		return id, "", ReasonMalformed
	}
	if low != uint64(crc32.ChecksumIEEE(bytesOf(token[:checked]))) {
		return id, "", ReasonChecksum
	}
	// The checksum is right, so the rest can only be wrong on purpose.
	id, ok = parseIDDigits(token[at : at+idDigits])
	if !ok {
		return ID{}, "", ReasonMalformed
	}
	return id, token[checked-secretDigits : checked], ReasonNone
}

func hasPrefix(start string, prefixes []string) bool {
	for _, p := range prefixes {
		if start == p {
			return true
		}
	}
	return false
}

// hasAnyPrefix reports whether a token begins as those made here.
func hasAnyPrefix(token string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(token, p) {
			return true
		}
	}
	return false
}

// containsToken reports whether text holds what has the shape of a token, or of the
// greater part of one.
func containsToken(text string, prefixes []string) bool {
	for _, p := range prefixes {
		if tokenBody(text, p) >= 0 {
			return true
		}
	}
	return false
}

// tokenBody returns where in a text that follows the prefix of a token, or -1.
func tokenBody(text, prefix string) int {
	for at := 0; ; at++ { // a prefix can overlap itself
		next := strings.Index(text[at:], prefix)
		if next < 0 {
			return -1
		}
		at += next
		if body := text[at+len(prefix):]; len(body) >= tellingDigits && isBase62(body[:tellingDigits]) {
			return at + len(prefix)
		}
	}
}

// redactTokens leaves of each token in a text its prefix.
func redactTokens(text string, prefixes []string) string {
	for _, p := range prefixes {
		for at := tokenBody(text, p); at >= 0; at = tokenBody(text, p) {
			end := at
			for end < len(text) && isBase62(text[end:end+1]) {
				end++
			}
			text = text[:at] + "REDACTED" + text[end:]
		}
	}
	return text
}

// bytesOf lends the bytes of s, for functions that only read them: a copy would
// cost every request an allocation.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// textOf lends b as a text, for as long as nobody changes it.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
