package apikey

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Limits of what a key can be told to be.
const (
	MaxIdentityLength    = 128  // bytes of an organization, user or service account id
	MaxNameLength        = 128  // characters
	MaxDescriptionLength = 1024 // characters
)

// checkIdentity refuses what could not be sent as the value of a header.
func checkIdentity(field, id string) error {
	if len(id) < 1 || len(id) > MaxIdentityLength {
		return &FieldError{field, fmt.Sprintf("must have 1 to %d characters", MaxIdentityLength)}
	}
	if !IsIdentity(id) {
		return &FieldError{field, "may hold visible ASCII characters only, and no spaces"}
	}
	return nil
}

// IsIdentity reports whether id can be the id of an organization, a user or a
// service account: 1 to MaxIdentityLength visible ASCII characters.
func IsIdentity(id string) bool {
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return len(id) >= 1 && len(id) <= MaxIdentityLength
}

// checkText refuses what would deceive the person who reads it: control
// characters, text that runs backwards, and invisible characters but for the
// two joiners that scripts and emoji need.
func checkText(field, text string, maxLength int) error {
	if !utf8.ValidString(text) {
		return &FieldError{field, "must be valid UTF-8"}
	}
	if utf8.RuneCountInString(text) > maxLength {
		return &FieldError{field, fmt.Sprintf("may have at most %d characters", maxLength)}
	}
	for _, r := range text {
		joiner := r == '\u200c' || r == '\u200d'
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) && !joiner {
			return &FieldError{field, "may not hold control characters, line breaks or invisible characters"}
		}
	}
	return nil
}

func checkName(name string) error {
	if err := checkText("name", name, MaxNameLength); err != nil {
		return err
	}
	visible := false
	for _, r := range name {
		visible = visible || unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S)
	}
	if !visible {
		return &FieldError{"name", "must have a visible character"}
	}
	first, _ := utf8.DecodeRuneInString(name)
	last, _ := utf8.DecodeLastRuneInString(name)
	if unicode.IsSpace(first) || unicode.IsSpace(last) {
		return &FieldError{"name", "may not begin or end with a space"}
	}
	return nil
}
