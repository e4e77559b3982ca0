package transport

import (
	"fmt"
	"strings"
)

// Field returns the value of a top-level key of an object as it is written, or
// nil. Of a key that occurs twice, the first counts. It does not allocate,
// unless a key is written with escapes.
func Field(p []byte, key string) []byte {
	start, end, ok := Find(p, key)
	if !ok {
		return nil
	}
	return p[start:end:end]
}

// Find returns where the value at a path of keys stands in an object.
func Find(p []byte, path ...string) (start, end int, ok bool) {
	end = len(p)
	for _, key := range path {
		s, e, found := findKey(p[start:end], key)
		if !found {
			return 0, 0, false
		}
		start, end = start+s, start+e
	}
	return start, end, true
}

// FindOnly is Find for callers that act on what they find. The error, a
// [*PeekError], says that a key on the path occurs twice or in other letters:
// another reader may then find another value. p passed [Inspect].
func FindOnly(p []byte, path ...string) (start, end int, ok bool, err error) {
	end = len(p)
	for _, key := range path {
		s, e, found, err := onlyKey(p[start:end], key)
		if err != nil || !found {
			return 0, 0, false, err
		}
		start, end = start+s, start+e
	}
	return start, end, true, nil
}

func onlyKey(p []byte, key string) (start, end int, found bool, err error) {
	for at := 0; ; {
		name, s, e, next := nextKey(p, at)
		if name == nil {
			return start, end, found, nil
		}
		at = next
		if !strings.EqualFold(string(name), key) {
			continue
		}
		if found || string(name) != key {
			return 0, 0, false, notRPC(fmt.Sprintf("the key %q occurs twice, or in other letters", key))
		}
		start, end, found = s, e, true
	}
}

func findKey(p []byte, key string) (start, end int, ok bool) {
	for at := 0; ; {
		name, s, e, next := nextKey(p, at)
		if name == nil {
			return 0, 0, false
		}
		if string(name) == key {
			return s, e, true
		}
		at = next
	}
}

// nextKey returns the key of an object behind at, where its value stands, and
// where to go on. At 0 the object begins. name is nil at the end, and where p
// is no object.
func nextKey(p []byte, at int) (name []byte, start, end, next int) {
	i := skipSpace(p, at)
	if i >= len(p) || at == 0 && p[i] != '{' || at != 0 && p[i] != ',' {
		return nil, 0, 0, 0
	}
	if i = skipSpace(p, i+1); i >= len(p) || p[i] != '"' {
		return nil, 0, 0, 0
	}
	quote := skipString(p, i)
	if quote < 0 {
		return nil, 0, 0, 0
	}
	name = unquote(p[i:quote])
	if i = skipSpace(p, quote); i >= len(p) || p[i] != ':' {
		return nil, 0, 0, 0
	}
	start = skipSpace(p, i+1)
	if end = skipValue(p, start); end < 0 {
		return nil, 0, 0, 0
	}
	return name, start, end, end
}
