package remotecontrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

const (
	// maxIDBytes bounds a client id and a stream id: every stream that is
	// remembered holds both. Real ones are UUIDs.
	maxIDBytes = 1 << 10
	// maxSubscribeCursorBytes bounds a subscribe cursor, which must fit into the
	// head of the next handshake.
	maxSubscribeCursorBytes = 4 << 10
)

// The types of client envelopes (spec 6.1).
const (
	typeMessage = "client_message"
	typeChunk   = "client_message_chunk"
	typeAck     = "ack"
	typePing    = "ping"
	typeClosed  = "client_closed"
)

// A clientEnvelope is what the relay sends: an event of one remote participant
// on one of its streams. Absent and null are the same: nil.
type clientEnvelope struct {
	Type     string          `json:"type"`
	ClientID *string         `json:"client_id"`
	StreamID *string         `json:"stream_id"`
	SeqID    *uint64         `json:"seq_id"`
	Cursor   *string         `json:"cursor"`
	Message  json.RawMessage `json:"message"` // of typeMessage: its bytes as they came

	// Of typeChunk; SegmentID of typeAck too.
	SegmentID    *uint64 `json:"segment_id"`
	SegmentCount *uint64 `json:"segment_count"`
	MessageSize  *uint64 `json:"message_size_bytes"`
	Chunk        *string `json:"message_chunk_base64"`

	chunk     []byte           // of typeChunk: what Chunk holds; on loan if Chunk is nil
	large     rope             // a message that is not in one piece, in place of Message
	peeked    pluginsdk.Peeked // of the message; of a large one, see peek
	unchecked bool             // only peeked was looked at: the message may still not be JSON
}

var (
	errNotUTF8   = errors.New("not UTF-8")
	errNoClient  = errors.New("no client_id")
	errLongID    = fmt.Errorf("client_id or stream_id of more than %d bytes", maxIDBytes)
	errNoMessage = errors.New("no message")
	errNoChunk   = errors.New("a field of the chunk is missing")
)

// decodeEnvelope decodes one text frame. What it returns is complete for its
// type, and keeps nothing of frame. Fields that it does not know are ignored;
// an error says nothing of what the frame held.
//
// The chunk of an envelope is on loan: it may point into frame.
func decodeEnvelope(frame []byte, p profile) (clientEnvelope, error) {
	var e clientEnvelope
	if !utf8.Valid(frame) {
		return e, errNotUTF8
	}
	if !p.chunks() || !e.scan(frame) {
		e = clientEnvelope{}
		if err := json.Unmarshal(frame, &e); err != nil {
			return e, describeJSON(err)
		}
		if e.Chunk != nil {
			e.chunk = []byte(*e.Chunk)
		}
	}
	return e, e.complete(p)
}

// complete reports what an envelope lacks for its type, and looks at its
// message.
func (e *clientEnvelope) complete(p profile) error {
	if e.ClientID == nil {
		return errNoClient
	}
	if len(*e.ClientID) > maxIDBytes || e.StreamID != nil && len(*e.StreamID) > maxIDBytes {
		return errLongID
	}
	switch {
	case e.Type == typeMessage:
		return e.peek()
	case e.Type == typeChunk && p.chunks():
		if e.SegmentID == nil || e.SegmentCount == nil || e.MessageSize == nil || e.chunk == nil {
			return errNoChunk
		}
	case e.Type == typeAck, e.Type == typePing, e.Type == typeClosed:
		if !p.chunks() {
			e.SegmentID = nil // a field of the other profile
		}
	default:
		return errors.New("unknown type of event")
	}
	return nil
}

// body is the message, whole or in pieces.
func (e *clientEnvelope) body() rope {
	if e.large.size > 0 {
		return e.large
	}
	return ropeOf(e.Message)
}

// peek looks at the message. What is not one of JSON-RPC makes the envelope
// undecodable, as in the reference.
//
// Of a large message only the head is looked at. If that does not say what it
// is, it counts as one that nothing can answer, and not as an initialize: the
// host will see.
func (e *clientEnvelope) peek() (err error) {
	if e.large.size > 0 {
		e.peeked, err = pluginsdk.Peek(e.large.head())
		if wrong, ok := errors.AsType[*pluginsdk.PeekError](err); ok && wrong.Code == pluginsdk.CodeParseError {
			e.peeked, err = pluginsdk.Peeked{}, nil
		}
		return err
	}
	if len(e.Message) == 0 || bytes.Equal(e.Message, []byte("null")) {
		return errNoMessage
	}
	e.peeked, err = pluginsdk.Peek(e.Message)
	return err
}

// describeJSON makes an error of the decoder one that holds no values.
func describeJSON(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if wrong.Field == "" {
			return errors.New("not an object")
		}
		return fmt.Errorf("field %s has the wrong type", wrong.Field)
	}
	if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON at byte %d", wrong.Offset)
	}
	return errors.New("not JSON")
}

// initialize reports whether the envelope opens a virtual client.
func (e *clientEnvelope) initialize() bool {
	return e.Type == typeMessage && e.peeked.Kind == pluginsdk.Request && string(e.peeked.Method) == "initialize"
}

// cursor returns the subscribe cursor of the envelope, or "". One that no
// header could carry would keep this host from ever connecting again: it is
// ignored.
func (e *clientEnvelope) cursor() string {
	if e.Cursor == nil || len(*e.Cursor) > maxSubscribeCursorBytes {
		return ""
	}
	for i := range len(*e.Cursor) {
		if b := (*e.Cursor)[i]; b < ' ' || b == 0x7f {
			return ""
		}
	}
	return *e.Cursor
}

// A pongStatus is what a pong says of the pinged stream.
type pongStatus uint8

const (
	noPong      pongStatus = iota // nobody asked
	pongActive                    // it has a virtual client
	pongUnknown                   // it has none
)

// envelopeTail is the constant end of every server envelope of a stream.
func envelopeTail(key streamKey) string {
	b := append([]byte(nil), `,"client_id":`...)
	b = append(b, marshal(key.client)...)
	b = append(b, `,"stream_id":`...)
	b = append(b, marshal(key.stream)...)
	return string(append(b, `,"seq_id":`...))
}

const messageHead = `{"type":"server_message","message":`

// appendMessage appends the envelope of a whole message. The bytes of message
// go out as they are.
func appendMessage(b []byte, message rope, tail string, seq uint64) []byte {
	b = append(b, messageHead...)
	b = message.appendTo(b)
	return appendTail(b, tail, seq)
}

func appendPong(b []byte, status pongStatus, tail string, seq uint64) []byte {
	if status == pongActive {
		b = append(b, `{"type":"pong","status":"active"`...)
	} else {
		b = append(b, `{"type":"pong","status":"unknown"`...)
	}
	return appendTail(b, tail, seq)
}

func appendTail(b []byte, tail string, seq uint64) []byte {
	b = append(b, tail...)
	b = strconv.AppendUint(b, seq, 10)
	return append(b, '}')
}

// messageEnvelopeBytes is the length of what appendMessage appends.
func messageEnvelopeBytes(size int, tail string, seq uint64) int {
	return len(messageHead) + size + len(tail) + digits(seq) + 1
}

func digits(n uint64) int {
	d := 1
	for n >= 10 {
		n /= 10
		d++
	}
	return d
}
