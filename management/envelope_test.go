package management

import (
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

func TestEnvelopeIsByteForByteTheContract(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	whole := newKeyData(&apikey.Key{
		ID:               apikey.ID{15: 1},
		OrganizationID:   "acme",
		UserID:           "alice",
		ServiceAccountID: "bot",
		Name:             "<first> & last",
		Description:      "for tests",
		Scope:            apikey.ScopeReadWrite,
		Prefix:           "ak",
		CreatedAt:        at,
		CreatedBy:        "alice",
		ExpiresAt:        at.Add(time.Hour),
		RevokedAt:        at.Add(120 * time.Millisecond),
		Usage: apikey.Usage{
			LastUsedAt: at.In(time.FixedZone("", 3600)), LastUsedIP: netip.MustParseAddr("2001:db8::1"), LastUsedUserAgent: "curl/8",
		},
	})
	whole.Token = "ak_token"

	for _, test := range []struct {
		name string
		data any
		want string
	}{
		{"every field", whole, `{"code":200,"data":{"createdAt":"2026-01-02T03:04:05Z","createdBy":"alice","description":"for tests",` +
			`"expiresAt":"2026-01-02T04:04:05Z","id":"key_0000000000000000000001","key":"ak_token","keyPrefix":"ak_0000000000000000000001",` +
			`"lastUsedAt":"2026-01-02T03:04:05Z","lastUsedIp":"2001:db8::1","lastUsedUserAgent":"curl/8",` +
			`"name":"\u003cfirst\u003e \u0026 last","organizationId":"acme","revokedAt":"2026-01-02T03:04:05.12Z","scope":"read-write",` +
			`"serviceAccountId":"bot","userId":"alice"},"message":"success","requestId":"abc-123"}` + "\n"},
		{"fields without a value are left out", newKeyData(&apikey.Key{Name: "first"}),
			`{"code":200,"data":{"name":"first","scope":"read"},"message":"success","requestId":"abc-123"}` + "\n"},
		{"an empty list", pageData{Items: []keyData{}},
			`{"code":200,"data":{"items":[]},"message":"success","requestId":"abc-123"}` + "\n"},
		{"a page with another after it", pageData{Items: []keyData{{ID: "key_1"}}, NextCursor: "key_1"},
			`{"code":200,"data":{"items":[{"id":"key_1"}],"nextCursor":"key_1"},"message":"success","requestId":"abc-123"}` + "\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			writeEnvelope(w, httptest.NewRequest("GET", "/", nil), 200, test.data, "success", "abc-123")
			if got := w.Body.String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
