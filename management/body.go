package management

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxBody is the size of the largest body that is read, in bytes.
const maxBody = 16 << 10

// member describes one member of the JSON object that a call takes. All values
// are strings.
type member struct {
	name     string
	required bool
	// blank accepts "", as if the member were absent. Elsewhere "" is refused.
	blank bool
	// operator keeps the member to the operator; to others it is unknown.
	operator bool
	// clears takes null for a value, which is then "". Elsewhere null is as
	// if the member were absent.
	clears bool
}

// receive reads the body of r as one JSON object of the given members, and
// returns the values of those that have one. No body is an empty object where no
// member is required.
func receive(w http.ResponseWriter, r *http.Request, members []member) (map[string]string, *Refusal) {
	if refusal := requireJSON(r.Header); refusal != nil {
		return nil, refusal
	}
	body, refusal := readBody(w, r, maxBody)
	if refusal != nil {
		return nil, refusal
	}
	required := slices.ContainsFunc(members, func(m member) bool { return m.required })
	if len(body) == 0 && !required {
		return nil, nil
	}
	return readObject("body", body, members)
}

// requireJSON refuses a body that is not declared as plain JSON, an empty one
// too.
func requireJSON(header http.Header) *Refusal {
	for _, coding := range header.Values("Content-Encoding") {
		if !strings.EqualFold(coding, "identity") {
			return UnsupportedMediaType()
		}
	}
	types := header.Values("Content-Type")
	if len(types) != 1 {
		return UnsupportedMediaType()
	}
	mediaType, parameters, err := mime.ParseMediaType(types[0])
	if err != nil || mediaType != "application/json" {
		return UnsupportedMediaType()
	}
	for name, value := range parameters {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return UnsupportedMediaType()
		}
	}
	return nil
}

// readBody reads the body of r, but never much more of it than is accepted,
// whatever its Content-Length says.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *Refusal) {
	if r.ContentLength > limit {
		return nil, BodyTooLarge(limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return nil, BodyTooLarge(limit)
	}
	if err != nil {
		return nil, invalidBody("", "the body could not be read to its end")
	}
	return body, nil
}

// readObject returns the values of the members of a JSON object. Those that are
// absent or null have none.
//
// It is strict, because what is ignored is not in force: a mistyped expiresAt
// would make a key that never ends. jsontext sees to names that repeat, to
// invalid UTF-8 and to lone surrogates. No value of the client reaches a
// message, and nothing nested is ever parsed. called is what messages call it.
func readObject(called string, body []byte, members []member) (map[string]string, *Refusal) {
	in := jsontext.NewDecoder(bytes.NewBuffer(body))
	if in.PeekKind() != jsontext.KindBeginObject {
		return nil, invalidBody("", "the "+called+" must be a JSON object, such as "+example(members))
	}
	in.ReadToken()

	values := make(map[string]string, len(members))
	for in.PeekKind() != jsontext.KindEndObject {
		token, err := in.ReadToken()
		if err != nil {
			return nil, syntaxRefusal(called, err, "")
		}
		name := token.String()
		known := find(members, name)
		if known == nil {
			return nil, unknownField(called, name, in.InputOffset(), members)
		}
		switch kind := in.PeekKind(); kind {
		case jsontext.KindString, jsontext.KindNull, jsontext.KindInvalid:
			token, err := in.ReadToken()
			switch {
			case err != nil:
				return nil, syntaxRefusal(called, err, name)
			case kind == jsontext.KindNull && known.clears:
				values[name] = ""
				continue
			case kind == jsontext.KindNull:
				continue
			case token.String() == "" && !known.blank:
				return nil, invalidField(name, name+" must not be empty: give a value, or leave it out")
			case token.String() == "" && !known.clears:
				continue
			}
			values[name] = token.String()
		default:
			return nil, invalidField(name, name+" must be a JSON string")
		}
	}
	in.ReadToken()
	if _, err := in.ReadToken(); err != io.EOF {
		return nil, invalidBody("", "the "+called+" must end after its JSON object")
	}

	for _, m := range members {
		if _, given := values[m.name]; m.required && !given {
			return nil, missingField(m.name, m.name+" is required: send it as a JSON string")
		}
	}
	return values, nil
}

// example is an object of the required members, or of the first one.
func example(members []member) string {
	var parts []string
	for i, m := range members {
		if m.required || i == 0 && !slices.ContainsFunc(members, func(m member) bool { return m.required }) {
			parts = append(parts, `"`+m.name+`": "..."`)
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func find(members []member, name string) *member {
	for i := range members {
		if members[i].name == name {
			return &members[i]
		}
	}
	return nil
}

// syntaxRefusal says where the JSON is broken. within is the member whose value
// was being read, if any.
func syntaxRefusal(called string, err error, within string) *Refusal {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !ok:
		return invalidBody(within, "the "+called+" is not a whole JSON object")
	case errors.Is(err, jsontext.ErrDuplicateName):
		// Only known names get as far as to repeat.
		name := syntax.JSONPointer.LastToken()
		return &Refusal{
			Status: http.StatusBadRequest, Reason: ReasonDuplicateField, Field: name,
			Message: name + " is given twice: send each field once",
		}
	case within != "":
		return invalidBody(within, fmt.Sprintf("%s is not a valid JSON string in UTF-8, at byte %d of the %s", within, syntax.ByteOffset, called))
	}
	return invalidBody("", fmt.Sprintf("the %s is not valid JSON in UTF-8, at byte %d", called, syntax.ByteOffset))
}

// unknownField refuses the member that ends at a byte of what was called so.
func unknownField(called, name string, end int64, members []member) *Refusal {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.name
	}
	f := &Refusal{Status: http.StatusBadRequest, Reason: ReasonUnknownField}
	which := ""
	if repeatable(name) {
		f.Field, which = name, fmt.Sprintf(" %q", name)
	}
	f.Message = fmt.Sprintf("unknown field%s, before byte %d of the %s: the fields are %s", which, end, called, strings.Join(names, ", "))
	return f
}

// repeatable reports whether a name that the client made up may stand in an
// answer. What people mistype is short and of letters, with a digit here or there; a
// token that slipped into the wrong place is longer and has many.
func repeatable(name string) bool {
	const letters, digits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-", "0123456789"
	longest := 32
	if strings.ContainsAny(name, digits) {
		longest = 12
	}
	return name != "" && len(name) <= longest && strings.Trim(name, letters+digits) == ""
}

func invalidBody(field, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonInvalidBody, Field: field, Message: message}
}

func invalidField(field, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonInvalidField, Field: field, Message: message}
}

func invalidHeader(name, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonInvalidHeader, Field: name, Message: message}
}

func missingField(field, message string) *Refusal {
	return &Refusal{Status: http.StatusBadRequest, Reason: ReasonMissingField, Field: field, Message: message}
}
