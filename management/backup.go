package management

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// A client may take so long for one piece of a backup, and must not be slower on
// the whole than so many bytes in a second: until it has all of a backup, the file
// of the store cannot use room that becomes free.
const (
	chunkPatience = 30 * time.Second
	slowest       = 256 << 10
)

// ServeBackup writes one consistent state of the store while it is in use, in the
// format of its driver. When it fails in the middle, the connection is cut. Who
// calls it must be the operator.
func (h *Handler) ServeBackup(w http.ResponseWriter, r *http.Request, requestID string) {
	keyring := h.toRead(w, r, requestID)
	if keyring == nil {
		return
	}
	begun := false
	err := keyring.Snapshot(r.Context(), func(size int64) (io.Writer, error) {
		begun = true
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.Header().Set("Cache-Control", "no-store")
		return newPatient(w), nil
	})
	h.finish(w, r, requestID, begun, err)
}

// finish ends an answer that was written piece by piece. Half of one must not pass
// for a whole one.
func (h *Handler) finish(w http.ResponseWriter, r *http.Request, requestID string, begun bool, err error) {
	if err == nil {
		return
	}
	if !begun {
		h.fail(w, r, requestID, err)
		return
	}
	if h.Log != nil && r.Context().Err() == nil {
		h.Log(r, requestID, err)
	}
	panic(http.ErrAbortHandler)
}

// patient gives up a client that takes nothing for long, or too little.
type patient struct {
	http.ResponseWriter
	connection *http.ResponseController
	begun      time.Time
	written    int64
}

func newPatient(w http.ResponseWriter) *patient {
	return &patient{w, http.NewResponseController(w), time.Now(), 0}
}

func (p *patient) Write(b []byte) (int, error) {
	deadline := time.Now().Add(chunkPatience)
	if last := p.begun.Add(chunkPatience + time.Duration(p.written)*time.Second/slowest); last.Before(deadline) {
		deadline = last
	}
	// Where there is no deadline to set, as in a test, there is none to miss.
	_ = p.connection.SetWriteDeadline(deadline)
	defer p.connection.SetWriteDeadline(time.Time{})
	n, err := p.ResponseWriter.Write(b)
	p.written += int64(n)
	return n, err
}

// checkLine is a line of the answer to a check. The last one has a result.
type checkLine struct {
	Keys   int          `json:"keys"` // that were read so far
	Fault  *checkFault  `json:"fault,omitempty"`
	Result *checkResult `json:"result,omitempty"`
}

type checkFault struct {
	Table   string `json:"table"`
	Key     string `json:"key"`
	Problem string `json:"problem"`
}

type checkResult struct {
	Keys    int `json:"keys"`
	Revoked int `json:"revoked"`
	Faults  int `json:"faults"`
}

// ServeCheck reads every record of the store and tells what is wrong, as lines of
// JSON. When it fails in the middle, the connection is cut. Who calls it must be
// the operator.
func (h *Handler) ServeCheck(w http.ResponseWriter, r *http.Request, requestID string) {
	keyring := h.toRead(w, r, requestID)
	if keyring == nil {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	lines, connection := json.NewEncoder(w), http.NewResponseController(w)
	keys, begun := 0, false
	tell := func(line checkLine) {
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			begun = true
		}
		_ = lines.Encode(line) // who has gone ends the check by the context
	}
	checked, err := keyring.Check(r.Context(), func(n int) {
		keys = n
		tell(checkLine{Keys: n})
		_ = connection.Flush()
	}, func(f apikey.Fault) {
		tell(checkLine{keys, &checkFault{f.Table.String(), f.Key, f.Problem}, nil})
	})
	if err == nil {
		tell(checkLine{checked.Keys, nil, &checkResult{checked.Keys, checked.Revoked, checked.Faults}})
	}
	h.finish(w, r, requestID, begun, err)
}
