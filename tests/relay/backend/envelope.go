package backend

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An EnvelopeType is the type field of an envelope, in either direction.
type EnvelopeType string

const (
	serverMessage      EnvelopeType = "server_message"
	serverMessageChunk EnvelopeType = "server_message_chunk"
	pongEnvelope       EnvelopeType = "pong"

	clientMessage      EnvelopeType = "client_message"
	clientMessageChunk EnvelopeType = "client_message_chunk"
	ackEnvelope        EnvelopeType = "ack"
	pingEnvelope       EnvelopeType = "ping"
	clientClosed       EnvelopeType = "client_closed"
)

// fieldOrder is how a host writes each type of envelope.
var fieldOrder = map[EnvelopeType][]string{
	serverMessage: {"type", "message", "client_id", "stream_id", "seq_id"},
	serverMessageChunk: {"type", "segment_id", "segment_count", "message_size_bytes", "message_chunk_base64",
		"client_id", "stream_id", "seq_id"},
	pongEnvelope: {"type", "status", "client_id", "stream_id", "seq_id"},
}

// A ServerEnvelope is what a host sends: a message, a segment of one, or a pong.
type ServerEnvelope struct {
	Type     EnvelopeType
	ClientID string
	StreamID string
	Seq      uint64
	Message  json.RawMessage // of a server_message
	Segment  Segment         // of a server_message_chunk
	Status   string          // of a pong: "active" or "unknown"
}

func (e *ServerEnvelope) key() streamKey { return streamKey{e.ClientID, e.StreamID} }

// position is where the envelope stands in its stream.
func (e *ServerEnvelope) position() position {
	return position{seq: e.Seq, segment: e.Segment.ID}
}

// last reports whether nothing more with this number follows.
func (e *ServerEnvelope) last() bool {
	return e.Type != serverMessageChunk || e.Segment.ID+1 >= e.Segment.Count
}

// payloadBytes is what the envelope weighs in a host's retention, at least.
func (e *ServerEnvelope) payloadBytes() int { return len(e.Message) + len(e.Segment.Data) }

// decodeEnvelope reads one text frame of a host. The problems are all that is
// wrong with it; ok reports whether it is still of use.
func decodeEnvelope(text []byte) (e ServerEnvelope, problems []problem, ok bool) {
	if !utf8.Valid(text) {
		return e, []problem{problemf(BadFrame, "a text frame of %d bytes is no UTF-8", len(text))}, false
	}
	if e, ok := decodeChunk(text); ok {
		return e, nil, true
	}
	if e, ok := decodeLarge(text); ok {
		return e, nil, true
	}
	keys, fields, err := decodeObject(text)
	if err != nil {
		return e, []problem{problemf(BadFrame, "%d bytes: %v", len(text), err)}, false
	}
	d := fieldDecoder{fields: fields}
	e.Type = EnvelopeType(d.text("type"))
	order := fieldOrder[e.Type]
	if order == nil {
		return e, []problem{problemf(BadEnvelope, "type is %q", shortened(string(e.Type)))}, false
	}
	for _, name := range order {
		if _, present := fields[name]; !present {
			d.complain("a %s has no %s", e.Type, name)
		}
	}
	for _, name := range keys {
		if !slices.Contains(order, name) {
			d.complain("a %s has a field %q", e.Type, shortened(name))
		}
	}
	if len(d.problems) == 0 && !slices.Equal(keys, order) {
		problems = append(problems, problemf(KeyOrder, "a %s has its fields in the order %s", e.Type, strings.Join(keys, ", ")))
	}
	e.ClientID, e.StreamID, e.Seq = d.text("client_id"), d.text("stream_id"), d.number("seq_id")
	if len(d.problems) == 0 && (e.ClientID == "" || e.StreamID == "") {
		d.complain("a %s has an empty client_id or stream_id", e.Type)
	}
	switch e.Type {
	case serverMessage:
		e.Message = fields["message"]
	case pongEnvelope:
		if e.Status = d.text("status"); e.Status != "active" && e.Status != "unknown" {
			d.complain("a pong has the status %q", shortened(e.Status))
		}
	case serverMessageChunk:
		e.Segment = d.segment()
	}
	return e, append(problems, d.problems...), len(d.problems) == 0
}

// A fieldDecoder takes values out of an object and remembers what is wrong.
type fieldDecoder struct {
	fields   map[string]json.RawMessage
	problems []problem
}

func (d *fieldDecoder) complain(format string, args ...any) {
	d.problems = append(d.problems, problemf(BadEnvelope, format, args...))
}

func (d *fieldDecoder) text(name string) string {
	raw, ok := d.fields[name]
	if !ok {
		return "" // complained of by the order
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		d.complain("%s is no string", name)
		return ""
	}
	return *s
}

func (d *fieldDecoder) number(name string) uint64 {
	raw, ok := d.fields[name]
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(string(raw), 10, 64)
	if err != nil {
		d.complain("%s is no unsigned number", name)
	}
	return n
}

// segment reads the fields of a chunk; its numbers are checked against the
// limits of 6.14, because they say how much memory to take.
func (d *fieldDecoder) segment() Segment {
	id, count, size := d.number("segment_id"), d.number("segment_count"), d.number("message_size_bytes")
	data, err := base64.StdEncoding.Strict().DecodeString(d.text("message_chunk_base64"))
	bad := func(format string, args ...any) {
		d.problems = append(d.problems, problemf(BadChunk, format, args...))
	}
	switch {
	case err != nil:
		bad("message_chunk_base64 is no padded standard base64")
	case len(data) == 0:
		bad("a segment without data")
	case count == 0 || count > maxSegments:
		bad("segment_count is %d, want 1 to %d", count, maxSegments)
	case id >= count:
		bad("segment_id is %d of %d", id, count)
	case size == 0 || size > maxMessage:
		bad("message_size_bytes is %d, want 1 to %d", size, maxMessage)
	case uint64(len(data)) > size:
		bad("a segment of %d bytes for a message of %d", len(data), size)
	default:
		return Segment{ID: int(id), Count: int(count), Size: int(size), Data: data}
	}
	return Segment{}
}

// decodeObject reads one JSON object and the order of its keys. The values are
// the bytes as they came.
func decodeObject(text []byte) (keys []string, fields map[string]json.RawMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, nil, errors.New("no JSON object")
	}
	fields = map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, nil, errors.New("broken JSON")
		}
		key := token.(string) // inside of an object every other token is a key
		if _, twice := fields[key]; twice {
			return nil, nil, fmt.Errorf("a key twice: %q", shortened(key))
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, nil, errors.New("broken JSON")
		}
		keys = append(keys, key)
		fields[key] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, nil, errors.New("broken JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("something behind the JSON object")
	}
	return keys, fields, nil
}

// shortened makes foreign text fit for a message.
func shortened(s string) string {
	const longest = 40
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "..."
}

// A clientEnvelope is what we send. Message bytes go out as they are.
type clientEnvelope struct {
	kind     EnvelopeType
	clientID string
	streamID string // "": left out
	seq      *uint64
	cursor   string // "": left out
	message  []byte
	segment  *Segment // of a chunk
	ackTo    *int     // segment_id of an ack
}

func (e *clientEnvelope) encode() []byte {
	out := append(make([]byte, 0, len(e.message)+256), `{"type":`...)
	out = appendJSON(out, string(e.kind))
	out = appendJSON(append(out, `,"client_id":`...), e.clientID)
	if e.streamID != "" {
		out = appendJSON(append(out, `,"stream_id":`...), e.streamID)
	}
	if e.seq != nil {
		out = strconv.AppendUint(append(out, `,"seq_id":`...), *e.seq, 10)
	}
	if e.cursor != "" {
		out = appendJSON(append(out, `,"cursor":`...), e.cursor)
	}
	if e.ackTo != nil {
		out = strconv.AppendInt(append(out, `,"segment_id":`...), int64(*e.ackTo), 10)
	}
	if s := e.segment; s != nil {
		out = fmt.Appendf(out, `,"segment_id":%d,"segment_count":%d,"message_size_bytes":%d,"message_chunk_base64":"`, s.ID, s.Count, s.Size)
		out = base64.StdEncoding.AppendEncode(out, s.Data)
		out = append(out, '"')
	}
	if e.kind == clientMessage {
		out = append(append(out, `,"message":`...), e.message...)
	}
	return append(out, '}')
}

func appendJSON(out []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return append(out, quoted...)
}
