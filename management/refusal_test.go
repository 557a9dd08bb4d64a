package management_test

import (
	"maps"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/management"
)

func TestEachRefusalHasItsStatusReasonAndHeaders(t *testing.T) {
	const realm = `My "API" \o/`
	const challenge = `Bearer realm="My \"API\" \\o/"`
	for name, test := range map[string]struct {
		refusal *management.Refusal
		status  int
		reason  string
		headers map[string]string
	}{
		"no credential":             {management.NoCredential(realm), 401, "no_credential", map[string]string{"WWW-Authenticate": challenge}},
		"two credentials":           {management.InvalidRequest(realm), 400, "invalid_request", map[string]string{"WWW-Authenticate": challenge + `, error="invalid_request"`}},
		"not a good key":            {management.InvalidToken(realm), 401, "invalid_token", map[string]string{"WWW-Authenticate": challenge + `, error="invalid_token"`}},
		"scope":                     {management.InsufficientScope(realm), 403, "insufficient_scope", map[string]string{"WWW-Authenticate": challenge + `, error="insufficient_scope"`}},
		"organization not admitted": {management.OrganizationNotAdmitted(), 403, "organization_not_admitted", nil},
		"cross-site":                {management.CrossSite(), 403, "cross_site", nil},
		"not signed":                {management.InvalidSignature(), 403, "invalid_signature", nil},
		"not found":                 {management.NotFound(), 404, "not_found", nil},
		"not a token":               {management.NotAToken(), 404, "not_found", nil},
		"method":                    {management.MethodNotAllowed("GET, HEAD"), 405, "method_not_allowed", map[string]string{"Allow": "GET, HEAD"}},
		"too large":                 {management.BodyTooLarge(16384), 413, "body_too_large", nil},
		"media type":                {management.UnsupportedMediaType(), 415, "unsupported_media_type", nil},
		"too early":                 {management.TooEarly(), 425, "too_early", nil},
		"internal":                  {management.Internal(), 500, "internal_error", nil},
		"no backup":                 {management.NoBackup(), 501, "not_supported", nil},
		"store unavailable":         {management.StoreUnavailable(), 503, "store_unavailable", map[string]string{"Retry-After": "5"}},
		"outcome unknown":           {management.OutcomeUnknown(), 503, "outcome_unknown", map[string]string{"Retry-After": "5"}},
	} {
		t.Run(name, func(t *testing.T) {
			get := httptest.NewRecorder()
			test.refusal.Write(get, httptest.NewRequest("GET", "/", nil), "req-1")
			a := checkAnswer(t, "GET", get.Code, get.Header(), get.Body.Bytes())
			if a.status != test.status || a.reason() != test.reason {
				t.Errorf("%d %s, want %d %s", a.status, a.reason(), test.status, test.reason)
			}
			for _, header := range []string{"WWW-Authenticate", "Allow", "Retry-After"} {
				if got := a.header.Get(header); got != test.headers[header] {
					t.Errorf("%s: %q, want %q", header, got, test.headers[header])
				}
			}

			head := httptest.NewRecorder()
			test.refusal.Write(head, httptest.NewRequest("HEAD", "/", nil), "req-1")
			if head.Body.Len() != 0 || head.Code != get.Code || !maps.EqualFunc(head.Header(), get.Header(), equalValues) {
				t.Errorf("HEAD differs: %d %v %q", head.Code, head.Header(), head.Body)
			}
		})
	}
}

func equalValues(a, b []string) bool { return len(a) == 1 && len(b) == 1 && a[0] == b[0] }

func TestRetryAfterIsRoundedUpToSeconds(t *testing.T) {
	for wait, want := range map[time.Duration]string{0: "", time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2"} {
		w := httptest.NewRecorder()
		(&management.Refusal{Status: 503, RetryAfter: wait}).Write(w, httptest.NewRequest("GET", "/", nil), "req-1")
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: Retry-After %q, want %q", wait, got, want)
		}
	}
}

func TestRefusalIsByteForByteTheContract(t *testing.T) {
	w := httptest.NewRecorder()
	refusal := &management.Refusal{Status: 400, Reason: management.ReasonMissingField, Field: "name", Message: "name is required"}
	refusal.Write(w, httptest.NewRequest("POST", "/", nil), "abc-123")
	want := `{"code":400,"data":{"reason":"missing_field","field":"name"},"message":"name is required","requestId":"abc-123"}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAPreparedRefusalIsTheSameAnswer(t *testing.T) {
	written := func(f *management.Refusal, requestID string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		f.Write(w, httptest.NewRequest("GET", "/", nil), requestID)
		return w
	}
	for _, requestID := range []string{"", "abc-123", "0197a5b4-c3d2-7e8f-9a0b-1c2d3e4f5061", `", "data": {`, "<é\x00"} {
		plain := written(management.InvalidToken("api"), requestID)
		prepared := written(management.InvalidToken("api").Prepare(), requestID)
		if prepared.Body.String() != plain.Body.String() || !maps.EqualFunc(prepared.Header(), plain.Header(), slices.Equal) {
			t.Errorf("%q: %v %s, want %v %s", requestID, prepared.Header(), prepared.Body, plain.Header(), plain.Body)
		}
	}
}
