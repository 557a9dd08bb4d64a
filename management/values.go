package management

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func readScope(text string) (apikey.Scope, *Refusal) {
	scope, ok := apikey.ParseScope(text)
	if !ok {
		return scope, invalidField("scope", `scope must be "read" or "read-write"`)
	}
	return scope, nil
}

func readEnd(text string) (time.Time, *Refusal) {
	end, ok := parseTime(text)
	if !ok {
		return end, invalidField("expiresAt", "expiresAt must be a time in the future in the form of RFC 3339, such as 2099-01-31T12:00:00Z")
	}
	return end, nil
}

// rfc3339 is the shape of RFC 3339 in capitals. time.Parse alone also takes a
// comma before the fraction, a fraction of any length and an offset of +24:00.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseTime reads an instant. The Keyring keeps it to the millisecond.
func parseTime(text string) (time.Time, bool) {
	if !rfc3339.MatchString(text) {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, text)
	// The zero time would make a key that never ends. Past the year 9999, which
	// an offset can reach, RFC 3339 cannot write the time.
	return t, err == nil && !t.IsZero() && t.UTC().Year() <= 9999
}

// maxDuration is the longest that makes sense, and far from what overflows.
const maxDuration = 100 * 365 * 24 * time.Hour

// parseDuration reads a duration that is not negative: "0", one of package time,
// or whole days.
func parseDuration(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil && time.Duration(n)*24*time.Hour <= maxDuration
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0 && d <= maxDuration
}

// once reads the Idempotency-Key of a call. route and body are what it asks for.
func (x *exchange) once(route string) (*apikey.Once, *Refusal) {
	values := x.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return nil, nil
	}
	key := values[0]
	visible := func(r rune) bool { return r > ' ' && r <= '~' }
	if len(values) > 1 || key == "" || len(key) > apikey.MaxOnceKey || strings.ContainsFunc(key, func(r rune) bool { return !visible(r) }) {
		return nil, invalidHeader("Idempotency-Key", "send one Idempotency-Key of 1 to "+strconv.Itoa(apikey.MaxOnceKey)+" visible ASCII characters")
	}
	h := sha256.New()
	for _, field := range slices.Sorted(maps.Keys(x.body)) {
		for _, part := range []string{field, x.body[field]} {
			h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
			h.Write([]byte(part))
		}
	}
	return &apikey.Once{Route: route, Key: key, Fingerprint: [sha256.Size]byte(h.Sum(nil))}, nil
}
