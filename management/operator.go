package management

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// The calls in this file are for the operator only: mounts for others do not offer
// them.

// maxImport is the size of the largest piece of an import, in bytes.
const maxImport = 4 << 20

var importMembers = []member{
	{name: "hash", required: true},
	{name: "algorithm", required: true},
	{name: "secret"},
	{name: "organizationId", required: true},
	{name: "name", required: true},
	{name: "description", blank: true},
	{name: "userId"},
	{name: "serviceAccountId"},
	{name: "scope"},
	{name: "expiresAt"},
}

// importData tells what became of the lines of an import. Lines are counted from
// 1 within the call.
type importData struct {
	Imported   int          `json:"imported"`
	Duplicates []int        `json:"duplicates,omitempty"`
	Refused    []importLine `json:"refused,omitempty"`
	// Room tells of a trial how many more active keys each organization may
	// have, where that is limited: lines of other calls may want it too.
	Room map[string]int `json:"room,omitempty"`
}

type importLine struct {
	Line    int    `json:"line"`
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// ServeImport makes keys for tokens that were made elsewhere: a piece of JSON
// lines. Unless the query says dry_run=true, those that are acceptable are imported
// together, and the others reported. by must be the operator.
func (h *Handler) ServeImport(w http.ResponseWriter, r *http.Request, by apikey.Principal) {
	data, err := h.importLines(w, r, by)
	if err != nil {
		h.fail(w, r, by.RequestID, err)
		return
	}
	writeEnvelope(w, r, http.StatusOK, data, "success", by.RequestID)
}

func (h *Handler) importLines(w http.ResponseWriter, r *http.Request, by apikey.Principal) (*importData, error) {
	if r.Method != http.MethodPost {
		return nil, MethodNotAllowed("POST")
	}
	if r.Header.Get("Content-Type") != "application/x-ndjson" {
		return nil, &Refusal{
			Status: http.StatusUnsupportedMediaType, Reason: ReasonUnsupportedMediaType,
			Message: "send JSON lines with one header Content-Type: application/x-ndjson",
		}
	}
	body, refusal := readBody(w, r, maxImport)
	if refusal != nil {
		return nil, refusal
	}
	// Strict: a trial must not become an import by a slip.
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badQuery()
	}
	dry, given := query["dry_run"]
	if given && (len(dry) != 1 || dry[0] != "true" && dry[0] != "false") {
		return nil, badParameter("dry_run", "dry_run must be true or false")
	}
	if len(query) > 1 || len(query) == 1 && !given {
		return nil, &Refusal{
			Status: http.StatusBadRequest, Reason: ReasonUnknownParameter,
			Message: "unknown query parameter: the parameter of an import is dry_run",
		}
	}
	keyring, err := h.Keyring()
	if err != nil {
		return nil, err
	}
	data := new(importData)
	var keys []apikey.Import
	var lines []int // of each key
	number := 0
	for line := range bytes.Lines(body) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		key, refusal := readImport(line)
		if refusal != nil {
			data.Refused = append(data.Refused, importLine{number, refusal.Field, refusal.Message})
			continue
		}
		keys, lines = append(keys, key), append(lines, number)
	}
	trial := given && dry[0] == "true"
	refused, err := keyring.ImportMany(r.Context(), by, keys, trial)
	if err == nil && trial {
		data.Room, err = keyring.Room(r.Context(), organizationsOf(keys))
	}
	if err != nil {
		return nil, err
	}
	for i, err := range refused {
		switch refusal := h.refusal(err); {
		case err == nil:
			data.Imported++
		case refusal.Reason == ReasonDuplicate:
			data.Duplicates = append(data.Duplicates, lines[i])
		default:
			data.Refused = append(data.Refused, importLine{lines[i], refusal.Field, refusal.Message})
		}
	}
	slices.SortFunc(data.Refused, func(a, b importLine) int { return a.Line - b.Line })
	return data, nil
}

func organizationsOf(keys []apikey.Import) (all []string) {
	for i := range keys {
		if apikey.IsIdentity(keys[i].OrganizationID) {
			all = append(all, keys[i].OrganizationID)
		}
	}
	return all
}

// readImport reads one line. Its errors never repeat what stands in it.
func readImport(line []byte) (key apikey.Import, _ *Refusal) {
	values, refusal := readObject("line", line, importMembers)
	if refusal != nil {
		return key, refusal
	}
	key = apikey.Import{
		Issue: apikey.Issue{
			Name: values["name"], Description: values["description"],
			UserID: values["userId"], ServiceAccountID: values["serviceAccountId"],
		},
		OrganizationID: values["organizationId"], Algorithm: values["algorithm"], Secret: values["secret"],
	}
	var err error
	if key.Hash, err = hex.DecodeString(values["hash"]); err != nil {
		return key, invalidField("hash", "hash must be hexadecimal digits")
	}
	if text, given := values["scope"]; given {
		if key.Scope, refusal = readScope(text); refusal != nil {
			return key, refusal
		}
	}
	if text, given := values["expiresAt"]; given {
		if key.ExpiresAt, refusal = readEnd(text); refusal != nil {
			return key, refusal
		}
	}
	return key, nil
}

// exportedData is a line of an export.
type exportedData struct {
	keyData
	Algorithm string `json:"algorithm,omitempty"`
	Hash      string `json:"hash,omitempty"`
	Pepper    string `json:"pepper,omitempty"`
}

// toRead returns the Keyring of a call that only reads, or nil when it was refused.
func (h *Handler) toRead(w http.ResponseWriter, r *http.Request, requestID string) *apikey.Keyring {
	if r.Method != http.MethodGet {
		MethodNotAllowed("GET").Write(w, r, requestID)
		return nil
	}
	keyring, err := h.Keyring()
	if err != nil {
		h.fail(w, r, requestID, err)
		return nil
	}
	return keyring
}

// ServeExport writes every key as a line of JSON, with the digest of its secret if
// the query says hashes=true. When it fails in the middle, the connection is cut:
// half an export must not pass for a whole one.
func (h *Handler) ServeExport(w http.ResponseWriter, r *http.Request, requestID string) {
	keyring := h.toRead(w, r, requestID)
	if keyring == nil {
		return
	}
	hashes := r.URL.Query().Get("hashes") == "true"
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	lines, begun := json.NewEncoder(w), false
	err := keyring.Export(r.Context(), func(e apikey.Exported) error {
		line := exportedData{keyData: newKeyData(&e.Key)}
		if hashes {
			line.Algorithm, line.Hash, line.Pepper = e.Algorithm, e.Hash, e.Pepper
		}
		begun = true
		return lines.Encode(line)
	})
	h.finish(w, r, requestID, begun, err)
}

// statsData sums a Keyring up.
type statsData struct {
	Keys         uint64 `json:"keys"`
	Revoked      uint64 `json:"revoked"`
	Expired      uint64 `json:"expired"`
	ExpiringSoon uint64 `json:"expiringIn7Days"`
	CountedAt    string `json:"countedAt,omitempty"` // expired and expiringIn7Days
	IndexEntries int    `json:"indexEntries"`
	IndexHits    uint64 `json:"indexHits"`
	IndexMisses  uint64 `json:"indexMisses"`
	UsagePending int    `json:"usagePending"`
}

// ServeStats tells how many keys there are, and how the index does.
func (h *Handler) ServeStats(w http.ResponseWriter, r *http.Request, requestID string) {
	if r.Method != http.MethodGet {
		MethodNotAllowed("GET").Write(w, r, requestID)
		return
	}
	keyring, err := h.Keyring()
	var keys apikey.Stats
	if err == nil {
		keys, err = keyring.Stats(r.Context())
	}
	if err != nil {
		h.fail(w, r, requestID, err)
		return
	}
	index := keyring.IndexStats()
	writeEnvelope(w, r, http.StatusOK, statsData{
		Keys: keys.Issued, Revoked: keys.Revoked, Expired: keys.Expired, ExpiringSoon: keys.ExpiringSoon,
		CountedAt:    timestamp(keys.CountedAt.Truncate(time.Second)),
		IndexEntries: index.Entries, IndexHits: index.Hits, IndexMisses: index.Misses, UsagePending: index.Pending,
	}, "success", requestID)
}
