package transport

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// A Kind is what a JSON-RPC message is.
type Kind uint8

const (
	_             Kind = iota // the zero value is a bug, not a default
	Request                   // has a method and an id
	Notification              // has a method and no id
	Response                  // has an id and a result
	ErrorResponse             // has an error; its id may be null
)

func (k Kind) String() string {
	switch k {
	case Request:
		return "request"
	case Notification:
		return "notification"
	case Response:
		return "response"
	case ErrorResponse:
		return "error response"
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// A Message is what [Peek] saw of a payload. Its slices point into the payload,
// except for a method whose name was written with escapes.
type Message struct {
	Kind   Kind
	ID     []byte // as written: 1, "1", 1.0; nil for a notification and for an error response to null
	Method []byte // without the quotes, escapes resolved; nil for responses
	IDAt   int    // where ID stands in the payload; 0 if there is none
}

// JSON-RPC error codes that hosts and transports answer with.
const (
	CodeParseError     = -32700
	CodeInvalidRequest = -32600
	CodeInternalError  = -32603
	CodeOverloaded     = -32001 // "Server overloaded; retry later."
)

// OverloadedText is the message of [CodeOverloaded] (spec 7.3).
const OverloadedText = "Server overloaded; retry later."

// AppendError appends an error response to b. An empty id becomes null. The id
// is copied as it was spelled.
func AppendError(b, id []byte, code int, message string) []byte {
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	if len(id) == 0 {
		b = append(b, "null"...)
	} else {
		b = append(b, id...)
	}
	text, err := json.Marshal(message)
	if err != nil { // a string always marshals
		text = []byte(`""`)
	}
	return fmt.Appendf(b, `,"error":{"code":%d,"message":%s}}`, code, text)
}

// A PeekError says why a payload is not a JSON-RPC message, and with which
// code its sender is answered.
type PeekError struct {
	Code int // CodeParseError or CodeInvalidRequest
	Text string
}

func (e *PeekError) Error() string { return e.Text }

func notJSON(text string, at int) error {
	return &PeekError{CodeParseError, fmt.Sprintf("Parse error: %s at byte %d", text, at)}
}

func notRPC(text string) error {
	return &PeekError{CodeInvalidRequest, "Invalid Request: " + text}
}

// Peek reads kind, id and method of one JSON-RPC message in one pass, without
// allocating, and stops as soon as they are known. What stands behind that
// point is not looked at: a payload that Peek accepts may still not be JSON
// (see [Inspect]). Of a key that occurs twice, the first counts.
//
// The error is a [*PeekError]. A method with a null id is a notification, as
// in the reference (spec 7.2).
func Peek(p []byte) (Message, error) { return peek(p, false) }

// Inspect is Peek for callers that act on what they see: it reads the whole
// payload, refuses what is not JSON, and refuses an id, method, result or
// error that occurs twice or in other letters (ID), because two readers may
// then see two messages.
func Inspect(p []byte) (Message, error) {
	if !json.Valid(p) {
		m, err := peek(p, true)
		if err == nil {
			err = notJSON("not valid JSON", len(p))
		}
		return m, err
	}
	return peek(p, true)
}

const (
	sawID = 1 << iota
	sawMethod
	sawResult
	sawError
)

func peek(p []byte, whole bool) (m Message, err error) {
	i := skipSpace(p, 0)
	if i == len(p) {
		return m, notJSON("empty message", i)
	}
	if p[i] == '[' {
		return m, notRPC("batches are not supported; send one message at a time")
	}
	if p[i] != '{' {
		if !json.Valid(p) {
			return m, notJSON("not JSON", i)
		}
		return m, notRPC("the message is not an object")
	}
	i = skipSpace(p, i+1)
	seen := 0
	if i < len(p) && p[i] == '}' {
		return m, notRPC("neither method nor result nor error")
	}
	for {
		if i >= len(p) || p[i] != '"' {
			return m, notJSON("expected a key", i)
		}
		end := skipString(p, i)
		if end < 0 {
			return m, notJSON("unterminated string", i)
		}
		bit := keyBit(p[i+1 : end-1])
		if whole && bit == 0 && foldsToKey(unquote(p[i:end])) {
			return m, notRPC("a key is id, method, params, result or error in other letters")
		}
		i = skipSpace(p, end)
		if i >= len(p) || p[i] != ':' {
			return m, notJSON("expected ':'", i)
		}
		i = skipSpace(p, i+1)
		if bit != 0 && seen&bit != 0 {
			if whole {
				return m, notRPC("id, method, result or error occurs twice")
			}
			bit = 0
		}
		seen |= bit
		// An id before a result or an error, or a method and an id: no later key
		// can change what this is. Values behind that point are not walked.
		if !whole {
			if seen&(sawID|sawResult) == sawID|sawResult && bit == sawResult && seen&sawMethod == 0 {
				return settle(m, seen)
			}
			if seen&(sawID|sawError) == sawID|sawError && bit == sawError && seen&sawMethod == 0 {
				return settle(m, seen)
			}
		}
		start := i
		i = skipValue(p, i)
		if i < 0 {
			return m, notJSON("bad or unterminated value", start)
		}
		switch bit {
		case sawID:
			switch c := p[start]; {
			case c == '"' || c == '-' || c >= '0' && c <= '9':
				m.ID, m.IDAt = p[start:i:i], start
			case c == 'n':
				seen &^= sawID // null: as if it were not there, but keep looking for no other
			default:
				return m, notRPC("the id is neither a string nor a number")
			}
		case sawMethod:
			if p[start] != '"' {
				return m, notRPC("the method is not a string")
			}
			m.Method = unquote(p[start:i])
		}
		if !whole && seen&(sawID|sawMethod) == sawID|sawMethod {
			return settle(m, seen)
		}
		i = skipSpace(p, i)
		if i >= len(p) {
			return m, notJSON("unterminated object", i)
		}
		if p[i] == '}' {
			break
		}
		if p[i] != ',' {
			return m, notJSON("expected ',' or '}'", i)
		}
		i = skipSpace(p, i+1)
	}
	if j := skipSpace(p, i+1); j != len(p) {
		return m, notJSON("text behind the message", j)
	}
	return settle(m, seen)
}

func settle(m Message, seen int) (Message, error) {
	switch {
	case seen&sawMethod != 0 && seen&sawID != 0:
		m.Kind = Request
	case seen&sawMethod != 0:
		m.Kind = Notification
	case seen&sawError != 0:
		m.Kind = ErrorResponse
	case seen&sawResult != 0 && seen&sawID != 0:
		m.Kind = Response
	case seen&sawResult != 0:
		return m, notRPC("a result without an id")
	default:
		return m, notRPC("neither method nor result nor error")
	}
	return m, nil
}

func keyBit(key []byte) int {
	if bytes.IndexByte(key, '\\') >= 0 {
		key = unquote(append(append([]byte{'"'}, key...), '"'))
	}
	switch string(key) {
	case "id":
		return sawID
	case "method":
		return sawMethod
	case "result":
		return sawResult
	case "error":
		return sawError
	}
	return 0
}

// foldsToKey reports whether a reader that does not mind the case of keys, as
// encoding/json does not, takes key for one of JSON-RPC's. Those spelled right
// are none of its business, except params.
func foldsToKey(key []byte) bool {
	const longest = len("params") * 3 // a letter has no more bytes in other letters
	if len(key) > longest {
		return false
	}
	for _, name := range [...]string{"id", "method", "params", "result", "error"} {
		if strings.EqualFold(string(key), name) {
			return string(key) != name
		}
	}
	return false
}

// unquote returns what a JSON string means; s includes the quotes.
func unquote(s []byte) []byte {
	if bytes.IndexByte(s, '\\') < 0 {
		return s[1 : len(s)-1 : len(s)-1]
	}
	var out string
	if err := json.Unmarshal(s, &out); err != nil {
		return s[1 : len(s)-1] // a bad escape: it equals no name that we know
	}
	return []byte(out)
}

func skipSpace(p []byte, i int) int {
	for i < len(p) && (p[i] == ' ' || p[i] == '\t' || p[i] == '\n' || p[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index behind the string that begins at i, or -1.
func skipString(p []byte, i int) int {
	i++
	for {
		n := bytes.IndexByte(p[i:], '"')
		if n < 0 {
			return -1
		}
		i += n + 1
		// A quote behind an odd number of backslashes belongs to the string.
		k := i - 2
		for k >= 0 && p[k] == '\\' {
			k--
		}
		if (i-2-k)%2 == 0 {
			return i
		}
	}
}

// skipValue returns the index behind the value that begins at i, or -1. Inside
// objects and arrays it checks that brackets match in number, no more.
func skipValue(p []byte, i int) int {
	if i >= len(p) {
		return -1
	}
	switch p[i] {
	case '"':
		return skipString(p, i)
	case '{', '[':
		depth := 0
		for i < len(p) {
			switch p[i] {
			case '"':
				if i = skipString(p, i); i < 0 {
					return -1
				}
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return -1
	}
	start := i
	for i < len(p) && p[i] != ',' && p[i] != '}' && p[i] != ']' && p[i] > ' ' {
		i++
	}
	if !scalar(p[start:i]) {
		return -1
	}
	return i
}

// scalar reports whether s is a JSON number, true, false or null.
func scalar(s []byte) bool {
	switch string(s) {
	case "true", "false", "null":
		return true
	case "":
		return false
	}
	if c := s[0]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	if len(s) < 18 { // the usual id: digits only
		plain := s[0] != '0' || len(s) == 1
		for _, c := range s {
			if c < '0' || c > '9' {
				plain = false
				break
			}
		}
		if plain {
			return true
		}
	}
	return json.Valid(s)
}
