package remotecontrol

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"sync"
	"unicode/utf8"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A rope is a message in pieces, as it arrived: one of 64 MiB is never put
// together, because that would hold up everybody else. Its bytes are never
// written. The zero value is no message.
type rope struct {
	pieces [][]byte
	size   int
}

// ropeOf makes a rope of pieces, which it keeps.
func ropeOf(pieces ...[]byte) rope {
	r := rope{pieces: pieces}
	for _, p := range pieces {
		r.size += len(p)
	}
	return r
}

func (r *rope) append(p []byte) {
	r.pieces = append(r.pieces, p)
	r.size += len(p)
}

// join is the message in one piece.
func (r rope) join() []byte {
	if len(r.pieces) == 1 {
		return r.pieces[0]
	}
	return bytes.Join(r.pieces, nil)
}

// slice is the part of the message from a byte to the one before another.
func (r rope) slice(from, to int) rope {
	var part rope
	for _, p := range r.pieces {
		if lo, hi := max(from, 0), min(to, len(p)); lo < hi {
			part.append(p[lo:hi:hi])
		}
		from, to = from-len(p), to-len(p)
	}
	return part
}

// head is the first bytes of a large message.
func (r rope) head() []byte {
	var head []byte
	for _, p := range r.pieces {
		head = append(head, p[:min(len(p), pluginsdk.LargeBytes-len(head))]...)
		if len(head) == pluginsdk.LargeBytes {
			break
		}
	}
	return head
}

// valid reports whether the message may stand in an envelope, or came out of
// one. It takes its time for a large one, see [pluginsdk.Pace].
func (r rope) valid() bool {
	if len(r.pieces) == 1 && r.size <= pluginsdk.LargeBytes {
		return validMessage(r.pieces[0])
	}
	var pace pluginsdk.Pace
	var check pluginsdk.Checker
	for _, p := range r.pieces {
		for len(p) > 0 {
			step := p[:min(len(p), pluginsdk.StepBytes)]
			p = p[len(step):]
			if !check.Write(step) {
				return false
			}
			pace.Step()
		}
	}
	return check.Valid()
}

// validMessage is [rope.valid] of one small piece.
func validMessage(p []byte) bool { return utf8.Valid(p) && json.Valid(p) }

// appendTo appends the whole message.
func (r rope) appendTo(b []byte) []byte {
	for _, p := range r.pieces {
		b = append(b, p...)
	}
	return b
}

// gathered holds buffers for what stands in two pieces.
var gathered = sync.Pool{New: func() any { return new([]byte) }}

// appendBase64 appends n bytes of the message, from an offset on, as base64.
func (r rope) appendBase64(b []byte, from, n int) []byte {
	i := 0
	for i < len(r.pieces) && from >= len(r.pieces[i]) {
		from -= len(r.pieces[i])
		i++
	}
	if i == len(r.pieces) {
		return b
	}
	if p := r.pieces[i][from:]; len(p) >= n {
		return base64.StdEncoding.AppendEncode(b, p[:n])
	}
	buf := gathered.Get().(*[]byte)
	defer gathered.Put(buf)
	*buf = (*buf)[:0]
	for ; i < len(r.pieces) && n > 0; i++ {
		p := r.pieces[i][from:]
		p = p[:min(len(p), n)]
		*buf = append(*buf, p...)
		n, from = n-len(p), 0
	}
	return base64.StdEncoding.AppendEncode(b, *buf)
}
