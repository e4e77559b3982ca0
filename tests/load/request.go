package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// idDigits is the length of every id, so that requests keep their size.
const idDigits = 12

// A request is the frame of one peer's requests, in which only the id changes.
type request struct {
	frame []byte
	idAt  int
	pad   []byte // what fills the request up, and comes back in an echo
}

// newRequest makes requests whose payload has size bytes, or as few more as
// they need. The padding depends on the peer and on the position, so that an
// answer with another peer's bytes, or with bytes in the wrong place, is found.
func newRequest(peer, size int, method string) request {
	head := []byte(`{"jsonrpc":"2.0","id":`)
	idAt := len(head)
	head = fmt.Appendf(head, `%0*d,"method":%q,"params":{"pad":"`, idDigits, 0, method)
	const tail = `"}}`
	pad := make([]byte, max(size-len(head)-len(tail), 0))
	for i, salt := 0, uint32(peer)*2654435761; i < len(pad); i++ {
		salt = salt*1664525 + 1013904223
		pad[i] = "abcdefghijklmnopqrstuvwxyz012345"[salt>>27]
	}
	payload := append(append(head, pad...), tail...)
	frame := AppendFrame(nil, payload)
	return request{frame: frame, idAt: len(frame) - len(payload) + idAt, pad: pad}
}

// withID returns the frame with an id; it is valid until the next call.
func (r *request) withID(id uint64) []byte {
	digits := r.frame[r.idAt : r.idAt+idDigits]
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + id%10)
		id /= 10
	}
	return r.frame
}

// firstID keeps ids free of leading zeros, which JSON does not allow.
const firstID = 100_000_000_000

// An answer is what one message of the server says.
type answer struct {
	id      uint64
	hasID   bool
	success bool // it carries a result
}

// readAnswer finds the id of a response. It looks for the first key "id",
// which is safe for servers that echo our own requests: their padding has no
// quotes.
func readAnswer(message []byte) answer {
	key := []byte(`"id":`)
	at := bytes.Index(message, key)
	if at < 0 {
		return answer{}
	}
	digits := bytes.TrimLeft(message[at+len(key):], " ")
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	id, err := strconv.ParseUint(string(digits[:end]), 10, 64)
	if err != nil {
		return answer{}
	}
	return answer{id: id, hasID: true, success: bytes.Contains(digits[:min(len(digits), 64)], []byte(`"result"`)) ||
		bytes.Contains(message[:at], []byte(`"result"`))}
}

// carries reports whether message brings the padding back, complete.
func (r *request) carries(message []byte) bool { return bytes.Contains(message, r.pad) }
