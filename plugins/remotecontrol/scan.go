package remotecontrol

import "bytes"

// scan decodes an envelope that is written as plainly as can be: known keys,
// each once, with whole numbers and strings without escapes. That is how chunks
// and acks come, and decoding a chunk of 133 KB in the usual way takes half a
// millisecond, for which every client on the link waits. It is false for
// everything else, and e is of no use then. frame is UTF-8.
func (e *clientEnvelope) scan(frame []byte) bool {
	s := scanner{rest: frame}
	if !s.take('{') {
		return false
	}
	for {
		key, ok := s.text()
		if !ok || !s.take(':') || !e.field(string(key), &s) {
			return false
		}
		if s.take('}') {
			s.space()
			return len(s.rest) == 0
		}
		if !s.take(',') {
			return false
		}
	}
}

// field takes the value of a key.
func (e *clientEnvelope) field(key string, s *scanner) bool {
	switch key {
	case "type":
		text, ok := s.text()
		again := e.Type != ""
		e.Type = string(text)
		return ok && !again
	case "client_id":
		return s.string(&e.ClientID)
	case "stream_id":
		return s.string(&e.StreamID)
	case "cursor":
		return s.string(&e.Cursor)
	case "seq_id":
		return s.number(&e.SeqID)
	case "segment_id":
		return s.number(&e.SegmentID)
	case "segment_count":
		return s.number(&e.SegmentCount)
	case "message_size_bytes":
		return s.number(&e.MessageSize)
	case "message_chunk_base64":
		again := e.chunk != nil
		text, ok := s.text()
		e.chunk = text
		return ok && !again
	}
	return false
}

// A scanner takes tokens off the front of a frame.
type scanner struct{ rest []byte }

func (s *scanner) space() {
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t' || s.rest[0] == '\n' || s.rest[0] == '\r') {
		s.rest = s.rest[1:]
	}
}

func (s *scanner) take(b byte) bool {
	if s.space(); len(s.rest) == 0 || s.rest[0] != b {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// text takes a string that means what it says. The result points into the
// frame, and is not nil.
func (s *scanner) text() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	end := bytes.IndexByte(s.rest, '"')
	if end < 0 {
		return nil, false
	}
	text := s.rest[:end:end]
	s.rest = s.rest[end+1:]
	if len(text) > maxIDBytes {
		// Of control characters, base64 minds all but these.
		return text, bytes.IndexByte(text, '\\') < 0 && bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') < 0
	}
	for _, b := range text {
		if b < ' ' || b == '\\' {
			return nil, false
		}
	}
	return text, true
}

func (s *scanner) string(into **string) bool {
	text, ok := s.text()
	if !ok || *into != nil || len(text) > maxIDBytes {
		return false
	}
	v := string(text)
	*into = &v
	return true
}

// number takes a number of so few digits that it cannot overflow.
func (s *scanner) number(into **uint64) bool {
	s.space()
	n, i := uint64(0), 0
	for i < len(s.rest) && i < 19 && s.rest[i] >= '0' && s.rest[i] <= '9' {
		n = n*10 + uint64(s.rest[i]-'0')
		i++
	}
	if i == 0 || i > 1 && s.rest[0] == '0' || *into != nil {
		return false
	}
	s.rest = s.rest[i:] // what is no end of a number fails as what follows
	*into = &n
	return true
}
