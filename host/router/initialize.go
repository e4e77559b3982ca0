package router

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// longestName bounds what is remembered of a name that a peer gives itself.
const longestName = 128

// clientName returns what the peer calls itself in an initialize request, or "".
// wellFormed says that the params are what a session begins with (spec 8.2): an
// application would take them. A version is not insisted on, because language
// servers' clients may leave it out.
func clientName(request []byte) (name string, wellFormed bool) {
	params := object(object(request)["params"])
	info := object(params["clientInfo"])
	name, ok := text(info["name"])
	if !ok || name == "" {
		return "", false
	}
	_, versionFits := text(info["version"])
	_, titleFits := text(info["title"])
	wellFormed = (versionFits || absent(info["version"])) && (titleFits || absent(info["title"])) &&
		(absent(params["capabilities"]) || object(params["capabilities"]) != nil)
	return cut(name), wellFormed
}

// object returns the members of a JSON object, by their exact names; nil if b is
// none.
func object(b []byte) map[string]json.RawMessage {
	var o map[string]json.RawMessage
	if json.Unmarshal(b, &o) != nil {
		return nil
	}
	return o
}

func text(b []byte) (string, bool) {
	var s *string
	if json.Unmarshal(b, &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

// absent reports whether a member is not there, or null.
func absent(b []byte) bool { return len(b) == 0 || bytes.Equal(b, []byte("null")) }

// cut shortens a name at the end of a character.
func cut(name string) string {
	if len(name) <= longestName {
		return name
	}
	end := longestName
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end]
}
