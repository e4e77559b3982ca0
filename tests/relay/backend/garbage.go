package backend

import (
	"fmt"
	"strings"

	"github.com/gorilla/websocket"
)

// A Garbage is a kind of frame that no host may stumble over.
type Garbage string

const (
	GarbageBinary       Garbage = "binary"
	GarbageNoJSON       Garbage = "no-json"
	GarbageNoObject     Garbage = "no-object"
	GarbageUnknownType  Garbage = "unknown-type"
	GarbageNoClient     Garbage = "no-client-id"
	GarbageIllTyped     Garbage = "ill-typed"
	GarbageNoMessage    Garbage = "no-message"
	GarbageNoRPC        Garbage = "no-json-rpc"
	GarbageEmptyStream  Garbage = "empty-stream-id"
	GarbageNegativeSeq  Garbage = "negative-seq-id"
	GarbageOversize     Garbage = "oversize-chunk"
	GarbageBase64       Garbage = "invalid-base64"
	GarbageNoSegments   Garbage = "no-segments"
	GarbageManySegments Garbage = "too-many-segments"
	GarbageSegmentID    Garbage = "segment-out-of-range"
	GarbageHugeSize     Garbage = "huge-size"
	GarbageOverflow     Garbage = "more-than-size"
	GarbageForeignAck   Garbage = "foreign-ack"
	GarbageHighAck      Garbage = "too-high-ack"
)

// AllGarbage lists every kind.
func AllGarbage() []Garbage {
	return []Garbage{GarbageBinary, GarbageNoJSON, GarbageNoObject, GarbageUnknownType, GarbageNoClient, GarbageIllTyped,
		GarbageNoMessage, GarbageNoRPC, GarbageEmptyStream, GarbageNegativeSeq, GarbageOversize, GarbageBase64, GarbageNoSegments,
		GarbageManySegments, GarbageSegmentID, GarbageHugeSize, GarbageOverflow, GarbageForeignAck, GarbageHighAck}
}

// text is a frame of this kind on a stream. Chunks have a number that no
// message of the stream reaches.
func (g Garbage) text(client, stream string) string {
	ids := fmt.Sprintf(`"client_id":%s,"stream_id":%s`, appendJSON(nil, client), appendJSON(nil, stream))
	chunk := func(id, count, size, data string) string {
		return fmt.Sprintf(`{"type":"client_message_chunk",%s,"seq_id":9000000000,"segment_id":%s,"segment_count":%s,"message_size_bytes":%s,"message_chunk_base64":%q}`,
			ids, id, count, size, data)
	}
	switch g {
	case GarbageBinary:
		return "\x00\xff\xfe"
	case GarbageNoJSON:
		return `{"type":"client_message",`
	case GarbageNoObject:
		return `[1,2,3]`
	case GarbageUnknownType:
		return `{"type":"client_wave",` + ids + `,"seq_id":1}`
	case GarbageNoClient:
		return `{"type":"ping"}`
	case GarbageIllTyped:
		return `{"type":"client_message","client_id":7,"message":{"method":"x"}}`
	case GarbageNoMessage:
		return `{"type":"client_message",` + ids + `}`
	case GarbageNoRPC:
		return `{"type":"client_message",` + ids + `,"message":{"no":"rpc"}}`
	case GarbageEmptyStream:
		return fmt.Sprintf(`{"type":"ping","client_id":%s,"stream_id":""}`, appendJSON(nil, client))
	case GarbageNegativeSeq:
		return `{"type":"client_message",` + ids + `,"seq_id":-1,"message":{"method":"x"}}`
	case GarbageOversize:
		return chunk("0", "2", "200000", strings.Repeat("QUFB", maxEnvelope/4+1))
	case GarbageBase64:
		return chunk("0", "2", "200000", "=not base64=")
	case GarbageNoSegments:
		return chunk("0", "0", "3", "QUFB")
	case GarbageManySegments:
		return chunk("0", fmt.Sprint(maxSegments+1), "200000", "QUFB")
	case GarbageSegmentID:
		return chunk("2", "2", "6", "QUFB")
	case GarbageHugeSize:
		return chunk("0", "2", fmt.Sprint(maxMessage+1), "QUFB")
	case GarbageOverflow:
		return chunk("0", "2", "2", "QUFB")
	case GarbageForeignAck:
		return `{"type":"ack","client_id":"nobody","stream_id":"nowhere","seq_id":1}`
	case GarbageHighAck:
		return `{"type":"ack",` + ids + `,"seq_id":9000000000}`
	}
	return ""
}

// Inject sends a frame of garbage on the client's stream before all messages
// that wait. An empty stream takes the one that the host chose.
func (c *Client) Inject(g Garbage) error {
	text := g.text(c.id, c.streamID())
	if text == "" {
		return fmt.Errorf("there is no garbage %q", g)
	}
	kind := websocket.TextMessage
	if g == GarbageBinary {
		kind = websocket.BinaryMessage
	}
	return c.raw(kind, []byte(text))
}

// InjectText sends a text frame as it is, on the link that carries the client.
func (c *Client) InjectText(text string) error { return c.raw(websocket.TextMessage, []byte(text)) }

func (c *Client) raw(kind int, text []byte) error {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.carrier(c)
	if l == nil {
		return fmt.Errorf("injecting a frame: %w", ErrNoLink)
	}
	c.known()
	return l.queue(controlFrame{kind, text})
}
