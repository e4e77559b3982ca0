package backend

import (
	"bytes"
	"encoding/base64"
	"strconv"
)

const chunkHead = `{"type":"server_message_chunk","segment_id":`

// decodeChunk reads a segment that is written exactly as a host should. It is
// false for everything else, which [decodeEnvelope] looks into, to say what is
// wrong with it. A relay that took its time for each segment would make
// everybody behind it on the socket wait, and tests would measure the relay.
// text is UTF-8.
func decodeChunk(text []byte) (e ServerEnvelope, ok bool) {
	s := plain{rest: text, ok: true}
	e.Type = serverMessageChunk
	s.skip(chunkHead)
	id := s.number()
	s.skip(`,"segment_count":`)
	count := s.number()
	s.skip(`,"message_size_bytes":`)
	size := s.number()
	s.skip(`,"message_chunk_base64":"`)
	encoded := s.text()
	s.addressee(&e)
	if !s.ok || len(encoded) == 0 ||
		count == 0 || count > maxSegments || id >= count || size == 0 || size > maxMessage {
		return ServerEnvelope{}, false
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(encoded)))
	n, err := base64.StdEncoding.Strict().Decode(data, encoded)
	if err != nil || n == 0 || uint64(n) > size {
		return ServerEnvelope{}, false
	}
	e.Segment = Segment{ID: int(id), Count: int(count), Size: int(size), Data: data[:n]}
	return e, true
}

const messageHead = `{"type":"server_message","message":`

// decodeLarge is the same for a large message that is not cut.
func decodeLarge(text []byte) (e ServerEnvelope, ok bool) {
	if len(text) <= largeMessage || !bytes.HasPrefix(text, []byte(messageHead)) {
		return e, false
	}
	end := bytes.LastIndex(text, []byte(`,"client_id":"`))
	if end < len(messageHead) {
		return e, false
	}
	e.Type, e.Message = serverMessage, text[len(messageHead):end:end]
	s := plain{rest: text[end:], ok: true}
	s.addressee(&e)
	if !s.ok || !validLarge(e.Message) {
		return ServerEnvelope{}, false
	}
	return e, true
}

// addressee takes the end of every envelope.
func (s *plain) addressee(e *ServerEnvelope) {
	s.skip(`,"client_id":"`)
	e.ClientID = string(s.text())
	s.skip(`,"stream_id":"`)
	e.StreamID = string(s.text())
	s.skip(`,"seq_id":`)
	e.Seq = s.number()
	s.skip("}")
	s.ok = s.ok && len(s.rest) == 0 && e.ClientID != "" && e.StreamID != ""
}

// A plain takes what it expects off the front of a text.
type plain struct {
	rest []byte
	ok   bool // everything was as expected
}

func (s *plain) skip(want string) {
	if s.ok = s.ok && bytes.HasPrefix(s.rest, []byte(want)); s.ok {
		s.rest = s.rest[len(want):]
	}
}

// text takes the rest of a string without escapes, and its quote.
func (s *plain) text() []byte {
	end := bytes.IndexByte(s.rest, '"')
	if s.ok = s.ok && end >= 0; !s.ok {
		return nil
	}
	text := s.rest[:end]
	s.rest = s.rest[end+1:]
	// Control characters in base64 are found by its decoder, but for these.
	s.ok = bytes.IndexByte(text, '\\') < 0 && bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0
	for i := 0; s.ok && len(text) < segmentTarget/2 && i < len(text); i++ {
		s.ok = text[i] >= ' '
	}
	return text
}

func (s *plain) number() uint64 {
	end := 0
	for end < len(s.rest) && s.rest[end] >= '0' && s.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(string(s.rest[:end]), 10, 64)
	if s.ok = s.ok && err == nil && (end == 1 || s.rest[0] != '0'); !s.ok {
		return 0
	}
	s.rest = s.rest[end:]
	return n
}
