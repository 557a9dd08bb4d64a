package management

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"net/url"
	"time"
)

// document describes the API at documentedPath.
//
//go:embed openapi.yaml
var document []byte

const documentedPath = "/v1/api-keys"

// Document is the OpenAPI description of an API. It holds nothing that depends on
// who asks, so it is served without a credential.
type Document struct {
	text []byte
	etag string
}

// DocumentPath is where a Document is served, below the path of its API.
const DocumentPath = "/openapi.yaml"

// NewDocument returns the description of an API at a path.
func NewDocument(path string) *Document {
	// In escaped form nothing in it has a meaning in YAML or in a path template.
	path = (&url.URL{Path: path}).EscapedPath()
	text := bytes.ReplaceAll(document, []byte(documentedPath), []byte(path))
	sum := sha256.Sum256(text)
	return &Document{text, `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// Serve answers r with the document (RFC 9512), or with a 405 that has the
// envelope.
func (d *Document) Serve(w http.ResponseWriter, r *http.Request, requestID string) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		MethodNotAllowed("GET, HEAD").Write(w, r, requestID)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/yaml")
	header.Set("Cache-Control", "no-cache") // ask each time whether it has changed
	header.Set("ETag", d.etag)
	header.Set("X-Content-Type-Options", "nosniff")
	// A part of it is of no use, and its refusal would not be in the envelope.
	r = r.Clone(r.Context())
	for _, condition := range []string{"Range", "If-Range", "If-Match", "If-Unmodified-Since"} {
		r.Header.Del(condition)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.text))
}
