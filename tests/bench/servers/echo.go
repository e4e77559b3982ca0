// Package servers holds what the host is measured against: JSON-RPC echo
// servers in one process, without any plugin, and a child for exec.
package servers

import (
	"bytes"
	"fmt"

	"github.com/transporthost/transporthost/shared/transport"
)

// appendEcho appends the answer to one request to b: its params as result. The
// request is peeked at with the same scan as in the host, and the params are
// copied as they are.
func appendEcho(b, payload []byte) ([]byte, error) {
	m, err := transport.Peek(payload)
	if err != nil {
		return b, fmt.Errorf("peeking at a request: %w", err)
	}
	if m.Kind != transport.Request {
		return b, nil
	}
	b = append(b, `{"jsonrpc":"2.0","id":`...)
	b = append(b, m.ID...)
	b = append(b, `,"result":`...)
	b = append(b, rawParams(payload)...)
	return append(b, '}'), nil
}

// rawParams returns the value of the top-level key "params" of an object that
// Peek accepted, or null. It trusts that the object is well formed, which is
// enough for a server that only our own load generator talks to.
func rawParams(p []byte) []byte {
	const key = `"params":`
	depth, start := 0, -1
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '"':
			if depth == 1 && start < 0 && bytes.HasPrefix(p[i:], []byte(key)) {
				i += len(key) - 1
				start = i + 1
				continue
			}
			i = endOfString(p, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 && start >= 0 {
				return p[start:i]
			}
		case ',':
			if depth == 1 && start >= 0 {
				return p[start:i]
			}
		}
	}
	return []byte("null")
}

// endOfString returns where the closing quote of the string at i stands.
func endOfString(p []byte, i int) int {
	for i++; i < len(p); {
		n := bytes.IndexByte(p[i:], '"')
		if n < 0 {
			break
		}
		i += n
		k := i - 1
		for p[k] == '\\' {
			k--
		}
		if (i-1-k)%2 == 0 { // an odd number of backslashes makes the quote part of the string
			return i
		}
		i++
	}
	return len(p)
}
