package management_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
	"github.com/caddy-apikeys/caddy-apikeys/management"
)

// published are the examples of GitHub's documentation of the partner program, with
// the public keys of its meta endpoint; the newest first.
var published = []struct{ body, identifier, signature, key string }{
	{
		`[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]`,
		"bcb53661c06b4728e59d897fb6165d5c9cda0fd9cdf9d09ead458168deb7518c",
		"MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==",
		"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAd\nAjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==",
	},
	{
		`[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]`,
		"f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d",
		"MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY=",
		"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP\nHzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==",
	},
	{
		`[{"token":"some_token","type":"some_type","url":"some_url"}]`,
		"90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a",
		"MEUCIQDKZokqnCjrRtw0tni+2Ltvl/uiMJ1EGumEsp1BsNr32AIgQY1YXD2nlj+XNfGK4rBfkMJ1JDOQcYXxa2sY8FNkrKc=",
		"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9MJJHnMfn2+H4xL4YaPDA4RpJqUq\nkCmRCBnYERxZanmcpzQSXs1X/AljlKkbJ8qpVIW4clayyef9gWhFbNHWAA==",
	},
}

func publicKey(t testing.TB, text string) *ecdsa.PublicKey {
	t.Helper()
	block, _ := pem.Decode([]byte("-----BEGIN PUBLIC KEY-----\n" + text + "\n-----END PUBLIC KEY-----\n"))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PublicKey)
}

// reporter signs alerts, as GitHub does, with a key of its own.
type reporter struct{ *ecdsa.PrivateKey }

func newReporter(t testing.TB) reporter {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return reporter{key}
}

func (k reporter) sign(body string) string {
	digest := sha256.Sum256([]byte(body))
	signature, _ := ecdsa.SignASN1(rand.Reader, k.PrivateKey, digest[:])
	return base64.StdEncoding.EncodeToString(signature)
}

func signedHeaders(identifier, signature string) http.Header {
	return http.Header{
		"Content-Type":                 {"application/json"},
		"Github-Public-Key-Identifier": {identifier}, "Github-Public-Key-Signature": {signature},
	}
}

// report sends an alert. The data of the answer are those of a refusal.
func (s *service) report(t testing.TB, signers management.Signers, method, body string, header http.Header) (answer, []map[string]string) {
	t.Helper()
	r := httptest.NewRequest(method, "/leaks", strings.NewReader(body))
	r.Header = header
	w := httptest.NewRecorder()
	s.handler.ServeLeaks(w, r, signers, "192.0.2.1", "req-1")
	if w.Code != http.StatusOK {
		return checkAnswer(t, method, w.Code, w.Header(), w.Body.Bytes()), nil
	}
	var feedback []map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &feedback); err != nil || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%v: %v %s", err, w.Header(), w.Body)
	}
	return answer{status: w.Code, bytes: w.Body.String()}, feedback
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func TestPublishedAlertsAreUnderstood(t *testing.T) {
	for _, example := range published {
		s := newService(t)
		hash := sha256.Sum256([]byte("some_token"))
		imported := apikey.Import{Issue: apikey.Issue{Name: "legacy", UserID: "carol"}, OrganizationID: "globex", Hash: hash[:], Algorithm: "sha256"}
		if refused, err := s.ring.ImportMany(t.Context(), apikey.Operator(""), []apikey.Import{imported}, false); err != nil || refused[0] != nil {
			t.Fatal(refused, err)
		}
		signers := management.Signers{example.identifier: publicKey(t, example.key)}
		for range 2 { // it may come again
			a, feedback := s.report(t, signers, "POST", example.body, signedHeaders(example.identifier, example.signature))
			want := map[string]string{"token_hash": hashOf("some_token"), "token_type": "some_type", "label": "true_positive"}
			if a.status != 200 || len(feedback) != 1 || !maps.Equal(feedback[0], want) {
				t.Errorf("%d %s", a.status, a.bytes)
			}
			page, err := s.ring.List(t.Context(), apikey.Operator("globex"), apikey.ListQuery{Limit: 1})
			if err != nil || page.Keys[0].RevokedFor != apikey.CauseLeaked || page.Keys[0].RevokedAt.IsZero() {
				t.Errorf("%v, %v", page, err)
			}
		}
	}
}

func TestAlertRevokesWhatIsOursAndSaysWhatIsNot(t *testing.T) {
	s, github := newService(t), newReporter(t)
	signers := management.Signers{"one": &newReporter(t).PublicKey, "two": &github.PublicKey}
	tokens := make(map[string]string) // by id
	var alerts, want []string
	add := func(token, label string) {
		alerts = append(alerts, `{"token":"`+token+`","type":"t","url":"","is_new_to_us":{"a":[1]}}`)
		want = append(want, hashOf(token)+" "+label)
	}
	for i := range 3 {
		made := s.mustCreate(t, []apikey.Principal{alice, bot, mallory}[i], `{"name":"x"}`)
		tokens[made["id"].(string)] = made["key"].(string)
	}
	for _, token := range tokens {
		add(token, "true_positive")
		add(token[:40]+token[41:], "false_positive")
		add(token, "true_positive")
	}
	add("of another make", "false_positive")
	body := " [" + strings.Join(alerts, ",\n") + "] "
	a, feedback := s.report(t, signers, "POST", body, signedHeaders("two", github.sign(body)))
	if a.status != 200 || len(feedback) != len(want) {
		t.Fatalf("%d %s", a.status, a.bytes)
	}
	for i, f := range feedback {
		if got := f["token_hash"] + " " + f["label"]; got != want[i] || f["token_type"] != "t" || len(f) != 3 {
			t.Errorf("%v, want %s", f, want[i])
		}
	}
	for id, token := range tokens {
		if v, err := s.ring.Verify(t.Context(), token); err != nil || v.Reason != apikey.ReasonRevoked {
			t.Errorf("%v, %v", v.Reason, err)
		}
		if strings.Contains(a.bytes, token[26:]) {
			t.Error("the answer has a secret")
		}
		parsed, _ := apikey.ParseID(id)
		if key, err := s.ring.Get(t.Context(), apikey.Operator(""), parsed); err != nil || key.RevokedFor != apikey.CauseLeaked {
			t.Errorf("%+v, %v", key, err)
		}
	}
	if a, feedback := s.report(t, signers, "POST", "[]", signedHeaders("two", github.sign("[]"))); a.status != 200 || a.bytes != "[]" || feedback == nil {
		t.Errorf("an empty alert: %d %s", a.status, a.bytes)
	}
}

// Whatever is wrong with a signature, the answer is the same, and nothing is done.
func TestAlertWithoutAGoodSignatureIsRefused(t *testing.T) {
	s, github, stranger := newService(t), newReporter(t), newReporter(t)
	signers := management.Signers{"key": &github.PublicKey}
	made := s.mustCreate(t, alice, `{"name":"x"}`)
	body := `[{"token":"` + made["key"].(string) + `","type":"t","url":""}]`
	good := github.sign(body)
	var answers []string
	for name, header := range map[string]http.Header{
		"no identifier":      signedHeaders("", good),
		"unknown identifier": signedHeaders("kez", good),
		"other case":         signedHeaders("KEY", good),
		"two identifiers":    {"Github-Public-Key-Identifier": {"key", "key"}, "Github-Public-Key-Signature": {good}},
		"no signature":       {"Github-Public-Key-Identifier": {"key"}},
		"two signatures":     {"Github-Public-Key-Identifier": {"key"}, "Github-Public-Key-Signature": {good, good}},
		"empty signature":    signedHeaders("key", ""),
		"not base64":         signedHeaders("key", "!"+good),
		"base64 of nothing":  signedHeaders("key", "AAAA"),
		"zeros":              signedHeaders("key", base64.StdEncoding.EncodeToString([]byte{0x30, 6, 2, 1, 0, 2, 1, 0})),
		"more behind it":     signedHeaders("key", base64.StdEncoding.EncodeToString(append(fromBase64(good), 0))),
		"of another body":    signedHeaders("key", github.sign(body+" ")),
		"of a stranger":      signedHeaders("key", stranger.sign(body)),
		"of another example": signedHeaders("key", published[0].signature),
	} {
		header.Set("Content-Type", "application/json")
		a, _ := s.report(t, signers, "POST", body, header)
		if a.status != 403 || a.reason() != "invalid_signature" {
			t.Errorf("%s: %d %s", name, a.status, a.reason())
		}
		answers = append(answers, a.bytes)
	}
	for _, other := range answers {
		if other != answers[0] {
			t.Errorf("answers differ: %s, %s", other, answers[0])
		}
	}
	if v, err := s.ring.Verify(t.Context(), made["key"].(string)); err != nil || !v.Allowed() {
		t.Errorf("a key was revoked by a stranger: %v, %v", v.Reason, err)
	}
	if len(s.logged) != 0 { // a stranger does not write our log
		t.Errorf("logged %v", s.logged)
	}
	if a, _ := s.report(t, signers, "POST", body, signedHeaders("key", good)); a.status != 200 {
		t.Errorf("the good one: %d %s", a.status, a.bytes)
	}
}

func fromBase64(text string) []byte {
	b, _ := base64.StdEncoding.DecodeString(text)
	return b
}

func TestAlertOfAnotherShapeIsRefusedAndLogged(t *testing.T) {
	s, github := newService(t), newReporter(t)
	signers := management.Signers{"key": &github.PublicKey}
	token := s.mustCreate(t, alice, `{"name":"x"}`)["key"].(string)
	good := `{"token":"` + token + `","type":"t","url":""}`
	for name, body := range map[string]string{
		"nothing": "", "null": "null", "an object": good, "a string": `"x"`, "half an array": "[" + good, "more behind it": "[" + good + "]]",
		"no token": "[" + good + `,{"type":"t","url":""}]`, "null for a token": "[" + good + `,{"token":null}]`, "null for an object": "[" + good + ",null]",
		"a number": "[" + good + `,{"token":1}]`, "another case": `[{"Token":"` + token + `"}]`, "two tokens": `[{"token":"a","token":"` + token + `"}]`,
		"invalid UTF-8": "[" + good + ",{\"token\":\"\xff\"}]", "too many": "[" + strings.Repeat(`{"token":"x"},`, 10_000) + `{"token":"x"}]`,
	} {
		s.logged = nil
		a, _ := s.report(t, signers, "POST", body, signedHeaders("key", github.sign(body)))
		if a.status != 400 || a.reason() != "invalid_body" || strings.Contains(a.bytes, token[26:]) {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
		if len(s.logged) != 1 || strings.Contains(fmt.Sprint(s.logged), token[26:]) {
			t.Errorf("%s: logged %v", name, s.logged)
		}
	}
	if v, err := s.ring.Verify(t.Context(), token); err != nil || !v.Allowed() {
		t.Errorf("half an alert was followed: %v, %v", v.Reason, err)
	}
	for name, c := range map[string]struct {
		method, body, contentType string
		status                    int
	}{
		"GET": {"GET", "", "application/json", 405}, "PUT": {"PUT", "[]", "application/json", 405}, "a form": {"POST", "[]", "application/x-www-form-urlencoded", 415},
		"no type": {"POST", "[]", "", 415}, "too large": {"POST", "[" + strings.Repeat(" ", 1<<20) + "]", "application/json", 413},
	} {
		header := signedHeaders("key", github.sign(c.body))
		header.Set("Content-Type", c.contentType)
		if a, _ := s.report(t, signers, c.method, c.body, header); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.bytes)
		}
	}
}

// Whoever reports may not wait for the answer.
func TestAlertIsFollowedWhenTheReporterHasLeft(t *testing.T) {
	s, github := newService(t), newReporter(t)
	token := s.mustCreate(t, alice, `{"name":"x"}`)["key"].(string)
	body := `[{"token":"` + token + `","type":"t","url":""}]`
	ctx, leave := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "POST", "/leaks", strings.NewReader(body))
	r.Header = signedHeaders("key", github.sign(body))
	s.handler.Keyring = func() (*apikey.Keyring, error) { leave(); return s.ring, nil }
	s.handler.ServeLeaks(httptest.NewRecorder(), r, management.Signers{"key": &github.PublicKey}, "", "req-1")
	if v, _ := s.ring.Verify(t.Context(), token); v.Reason != apikey.ReasonRevoked {
		t.Errorf("%v, logged %v", v.Reason, s.logged)
	}
}

// endless is a body that never comes.
type endless struct {
	read chan<- struct{} // gets one with the first read
	end  <-chan struct{}
	once sync.Once
}

func (e *endless) Read([]byte) (int, error) {
	e.once.Do(func() { e.read <- struct{}{} })
	<-e.end
	return 0, io.ErrUnexpectedEOF
}

func TestStrangersWithEndlessAlertsTakeLittleMemory(t *testing.T) {
	const most = 16
	s, github := newService(t), newReporter(t)
	send := func(ctx context.Context, body io.Reader, signature string) int {
		r := httptest.NewRequestWithContext(ctx, "POST", "/leaks", body)
		r.Header = signedHeaders("key", signature)
		w := httptest.NewRecorder()
		s.handler.ServeLeaks(w, r, management.Signers{"key": &github.PublicKey}, "", "req-1")
		return w.Code
	}
	read, end := make(chan struct{}, most), make(chan struct{})
	var strangers sync.WaitGroup
	for range most {
		strangers.Go(func() { send(t.Context(), &endless{read: read, end: end}, "") })
	}
	for range most {
		<-read
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	for range 20 { // whoever may go on or leave does either
		body := strings.NewReader("[]")
		if send(left, body, ""); body.Len() < 2 {
			t.Fatalf("more than %d alerts are read at once", most)
		}
	}
	answered := make(chan int)
	go func() { answered <- send(t.Context(), strings.NewReader("[]"), github.sign("[]")) }()
	close(end) // as the deadline does
	if status := <-answered; status != 200 {
		t.Errorf("a good alert behind them: %d", status)
	}
	strangers.Wait()
}

// What cannot be revoked now must be reported again: it is no success.
func TestAlertThatCannotBeFollowedIsUnavailable(t *testing.T) {
	s, github := newService(t), newReporter(t)
	signers := management.Signers{"key": &github.PublicKey}
	token := s.mustCreate(t, alice, `{"name":"x"}`)["key"].(string)
	body := `[{"token":"` + token + `","type":"t","url":""},{"token":"of another make","type":"t","url":""}]`
	header := signedHeaders("key", github.sign(body))
	s.store.breakWith(apikey.ErrUnavailable)
	a, _ := s.report(t, signers, "POST", body, header)
	if a.status != 503 || a.reason() != "store_unavailable" || len(s.logged) != 1 || strings.Contains(fmt.Sprint(s.logged), token[26:]) {
		t.Errorf("%d %s, logged %v", a.status, a.bytes, s.logged)
	}
	s.store.fault.Store(nil)
	if a, _ := s.report(t, signers, "POST", body, header); a.status != 200 {
		t.Errorf("again: %d %s", a.status, a.bytes)
	}
	if v, _ := s.ring.Verify(t.Context(), token); v.Reason != apikey.ReasonRevoked {
		t.Errorf("%v", v.Reason)
	}
}

// FuzzLeakAlert signs bodies that nobody thought of. None makes an answer of 500 or
// more or revokes a key that it does not name, and what is accepted is an array.
func FuzzLeakAlert(f *testing.F) {
	for _, body := range []string{
		``, `null`, `[]`, `[{}]`, `[null]`, `{}`, `[{"token":"x"}]`, published[0].body, published[1].body, `[{"token":"x","url":"https://u:p@h/%zz?q#f"}]`,
		`[{"token":"x","url":"http://[::1]:99/\u0000"},{"token":"\ud83d\ude00","type":"","extra":[[[{}]]]}]`, `[{"token":"x"}] `, `[{"token":"x"},]`,
		"[{\"token\":\"\xff\"}]", `[{"token":"\ud800"}]`, `[{"token":"x","token":"y"}]`, `[{"type":null,"url":null,"token":"x"}]`,
	} {
		f.Add([]byte(body))
	}
	github := newReporter(f)
	signers := management.Signers{"key": &github.PublicKey}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := newService(t)
		key := s.mustCreate(t, alice, `{"name":"x"}`)["key"].(string)
		a, feedback := s.report(t, signers, "POST", string(body), signedHeaders("key", github.sign(string(body))))
		var read []map[string]any
		switch {
		case a.status == 200 && (json.Unmarshal(body, &read) != nil || len(read) != len(feedback)):
			t.Fatalf("accepted %d of %d tokens", len(feedback), len(read))
		case a.status != 200 && (a.status != 400 || len(s.logged) != 1):
			t.Fatalf("%d, logged %v", a.status, s.logged)
		}
		for _, f := range feedback {
			if f["label"] != "false_positive" || len(f["token_hash"]) != 64 {
				t.Errorf("%v", f)
			}
		}
		if v, err := s.ring.Verify(t.Context(), key); err != nil || !v.Allowed() {
			t.Errorf("%v, %v", v.Reason, err)
		}
	})
}
