package caddymodule

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

// auditLogger is the name of the logger under the app's that tells of every
// change, and auditMessage the start of its messages. auditMoved is the one that
// tells of no change of a key, but of its use.
const (
	auditLogger  = "audit"
	auditMessage = "api key "
	auditMoved   = auditMessage + "client changed"
)

// auditLog is what the lines of the audit log say of keys: how each stood after
// its last change.
type auditLog map[apikey.ID]apikey.Later

// isLog reports whether a file has lines of JSON.
func isLog(name string) (bool, error) {
	file, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	start := make([]byte, 512)
	n, err := io.ReadFull(file, start)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return false, err
	}
	// The lines of other programs may stand between those of Caddy.
	return !bytes.ContainsRune(start[:n], 0) && n > 0, nil
}

// auditLine is a line of Caddy's log, in JSON.
type auditLine struct {
	Logger, Msg string
	TS          json.RawMessage
	KeyID       string `json:"api_key_id"`
	Cause       string
	Scope       string
	ExpiresAt   string `json:"expires_at"`
}

// read adds the lines of a file, which is as old as or later than those before.
func (l auditLog) read(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	found := false
	in := bufio.NewReaderSize(file, 64<<10)
	for number, more := 1, true; more; number++ {
		text, err := in.ReadBytes('\n')
		if more = err == nil; err != nil && err != io.EOF {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if !bytes.Contains(text, []byte(appName+"."+auditLogger)) {
			continue
		}
		var line auditLine
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("%s, line %d: it is not the JSON that Caddy writes: %w", name, number, err)
		}
		if line.Logger != appName+"."+auditLogger {
			continue // it only speaks of the audit log
		}
		found = true
		if line.Msg == auditMoved {
			continue
		}
		if err := l.add(&line); err != nil {
			return fmt.Errorf("%s, line %d: %w", name, number, err)
		}
	}
	if !found {
		return fmt.Errorf("%s has no line of the logger %s.%s, in JSON: is it another log?", name, appName, auditLogger)
	}
	return nil
}

// add takes what a line says. A change that is not understood must not be missed.
func (l auditLog) add(line *auditLine) error {
	id, ok := apikey.ParseID(line.KeyID)
	if !ok {
		return fmt.Errorf("api_key_id is not the id of a key")
	}
	became := l[id]
	if became.Scope, ok = apikey.ParseScope(line.Scope); !ok {
		return fmt.Errorf("scope is neither read nor read-write")
	}
	became.ExpiresAt = time.Time{}
	if line.ExpiresAt != "" {
		var err error
		if became.ExpiresAt, err = time.Parse(time.RFC3339, line.ExpiresAt); err != nil {
			return fmt.Errorf("expires_at is not a time")
		}
	}
	if line.Msg == auditMessage+apikey.ChangeRevoked.String() {
		became.Revoked, became.RevokedAt, became.RevokedFor = true, line.time(), line.Cause
	}
	l[id] = became
	return nil
}

// time is when a line was written, as far as that can be told: the format of times
// is a setting of the log.
func (line *auditLine) time() time.Time {
	var seconds float64
	if json.Unmarshal(line.TS, &seconds) == nil && seconds > 0 && seconds < 1e11 {
		return time.UnixMilli(int64(seconds * 1000))
	}
	var at time.Time
	_ = json.Unmarshal(line.TS, &at)
	return at
}

func (l auditLog) history(_ context.Context, ids []apikey.ID) (map[apikey.ID]apikey.Later, error) {
	became := make(map[apikey.ID]apikey.Later)
	for _, id := range ids {
		if later, known := l[id]; known {
			became[id] = later
		}
	}
	return became, nil
}
