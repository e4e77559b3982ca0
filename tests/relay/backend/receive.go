package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/gorilla/websocket"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Frame is one envelope that a host sent, for tests that look at the wire.
type Frame struct {
	N        int // from 1, over all links
	Link     int
	At       time.Time
	Fresh    bool           // not seen before
	Envelope ServerEnvelope // Message and Segment.Data only if Text is there
	Text     []byte         // as it came; nil if it was long
}

// receive takes a frame of a host. It reports whether a fault drops the link.
// Large messages are decoded without b.mu, or everybody would wait for them.
func (b *Backend) receive(l *link, kind int, text []byte) (drop bool) {
	var e ServerEnvelope
	var problems []problem
	var ok bool
	if kind == websocket.TextMessage {
		e, problems, ok = decodeEnvelope(text)
	} else {
		problems = []problem{problemf(BadFrame, "a binary frame of %d bytes", len(text))}
	}
	hash := maphash.Bytes(b.seed, text)

	b.mu.Lock()
	l.connect.Received++
	drop = b.faults.dropDue()
	b.violate(l.connect.N, problems...)
	var whole *arrival
	if ok {
		whole = b.take(l, &e, text, hash)
	}
	b.notify()
	b.mu.Unlock()
	switch {
	case whole == nil:
	case whole.large:
		go func() { // the handler of the link was counted, this is too
			defer b.handlers.Done()
			b.deliver(l, whole)
		}()
	default:
		b.deliver(l, whole)
	}
	return drop
}

// An arrival is a message that is whole, before it has been looked into.
type arrival struct {
	stream  *stream
	turn    uint64
	seq     uint64
	payload [][]byte
	large   bool // to look into it takes long, or the one before it does: the reader has others to read
}

// take checks an envelope against its stream. It returns a message if one is
// whole with it. b.mu is held.
func (b *Backend) take(l *link, e *ServerEnvelope, text []byte, hash uint64) *arrival {
	st := b.streams[e.key()]
	if st == nil {
		if !b.known[streamKey{client: e.ClientID}] {
			b.violate(l.connect.N, problemf(Unasked, "a %s for a client %q that never sent anything", e.Type, shortened(e.ClientID)))
			return nil
		}
		if !b.known[e.key()] && !uuid7Pattern.MatchString(e.StreamID) {
			b.violate(l.connect.N, problemf(BadStreamID, "client %q: stream %q is no UUIDv7", shortened(e.ClientID), shortened(e.StreamID)))
		}
		st = newStream(e.key())
		b.streams[e.key()] = st
	}
	var previous *frontier
	if f, ok := l.last[e.key()]; ok {
		previous = &f
	}
	fresh, restarted, problems := st.accept(e, hash, previous, l.connect.Cursor == "")
	l.last[e.key()] = frontier{at: e.position(), last: e.last()}
	if restarted {
		l.connect.Restarts++
		b.log.Info("a stream began anew", "link", l.connect.N, "client", e.ClientID, "stream", e.StreamID)
	}
	b.violate(l.connect.N, append(problems, b.checkSize(e, len(text))...)...)
	b.recordFrame(l, e, text, fresh)
	b.dueAck(l, st)
	if !fresh {
		return nil
	}
	return b.complete(l, st, e, len(text))
}

// checkSize compares an envelope with the limits of the profile.
func (b *Backend) checkSize(e *ServerEnvelope, n int) []problem {
	switch {
	case e.Type == serverMessageChunk && !b.opts.Profile.chunks():
		return []problem{problemf(BadChunk, "%v: seq_id %d: a segment, where the profile has none", e.key(), e.Seq)}
	case b.opts.Profile.chunks() && n > maxEnvelope:
		return []problem{problemf(TooLarge, "%v: seq_id %d: a %s of %d bytes, limit %d", e.key(), e.Seq, e.Type, n, maxEnvelope)}
	}
	return nil
}

// complete passes a pong on, and collects segments.
func (b *Backend) complete(l *link, st *stream, e *ServerEnvelope, n int) *arrival {
	a := &arrival{stream: st, seq: e.Seq, payload: [][]byte{e.Message}}
	switch e.Type {
	case pongEnvelope:
		if c := b.addressee(e.key(), true); c != nil {
			c.ponged(Pong{Status: e.Status, StreamID: e.StreamID, Seq: e.Seq})
		}
		return nil
	case serverMessageChunk:
		var problems []problem
		a.payload, problems = st.collect(e, n)
		b.violate(l.connect.N, problems...)
		if a.payload == nil {
			return nil
		}
	}
	st.messages++
	a.turn = st.arrived
	st.arrived++
	if a.large = e.Segment.Size > largeMessage || len(e.Message) > largeMessage || st.delivered != a.turn; a.large {
		b.handlers.Add(1) // while that of the link is counted
	}
	return a
}

// deliver gives a message to the client that it is for. The turns keep the
// order if the next link is served before the one before it has ended.
func (b *Backend) deliver(l *link, a *arrival) {
	m, err := parseMessage(join(a.payload))
	m.Seq, m.StreamID = a.seq, a.stream.key.stream
	b.mu.Lock()
	defer b.mu.Unlock()
	for a.stream.delivered != a.turn {
		turn := a.stream.turn.wait()
		b.mu.Unlock()
		over := false
		select {
		case <-turn: // whoever is before us only parses
		case <-b.done:
			over = true
		}
		b.mu.Lock()
		if over {
			return
		}
	}
	a.stream.delivered++
	a.stream.turn.ring()
	if err != nil {
		b.violate(l.connect.N, problemf(BadMessage, "%v: seq_id %d: %v", a.stream.key, a.seq, err))
		return
	}
	b.log.Debug("from the host", "link", l.connect.N, "client", a.stream.key.client, "seq", a.seq, "method", m.Method, "bytes", len(m.Payload))
	if c := b.addressee(a.stream.key, false); c != nil {
		c.receive(m)
	}
}

// addressee is the client that an envelope is for: the one that named the
// stream, else the one that left the name to the host. b.mu is held.
func (b *Backend) addressee(key streamKey, pong bool) *Client {
	var unnamed *Client
	for _, c := range b.clients {
		switch {
		case c.id != key.client:
		case c.stream == key.stream || c.stream == "" && c.learned == key.stream:
			return c
		case c.stream == "" && (pong || c.learned == ""):
			unnamed = c
		}
	}
	if unnamed != nil && !pong {
		unnamed.learned = key.stream
	}
	return unnamed
}

func (b *Backend) recordFrame(l *link, e *ServerEnvelope, text []byte, fresh bool) {
	b.framesSeen++
	f := Frame{N: b.framesSeen, Link: l.connect.N, At: time.Now(), Fresh: fresh, Envelope: *e}
	if len(text) <= recordedText {
		f.Text = text
	} else {
		f.Envelope.Message, f.Envelope.Segment.Data = nil, nil
	}
	b.frames = append(b.frames, f)
	if len(b.frames) > maxRecorded {
		b.frames = b.frames[1:]
	}
}

// Frames lists the envelopes that hosts sent, oldest first, repeated ones
// included.
func (b *Backend) Frames() []Frame {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Frame(nil), b.frames...)
}

// AwaitFrame waits for an envelope that matches, and returns the first one,
// which may be one of the past: compare N or Link to have a later one.
func (b *Backend) AwaitFrame(ctx context.Context, match func(Frame) bool) (Frame, error) {
	var found Frame
	err := b.await(ctx, &b.changed, func() bool {
		for _, f := range b.frames {
			if match(f) {
				found = f
				return true
			}
		}
		return false
	})
	if err != nil {
		return Frame{}, fmt.Errorf("awaiting an envelope: %w", err)
	}
	return found, nil
}

// A Message is a JSON-RPC message of a host.
type Message struct {
	Payload  json.RawMessage
	ID       json.RawMessage // nil for a notification
	Method   string          // "" for a response
	Params   json.RawMessage
	Result   json.RawMessage
	Error    *RPCError
	Seq      uint64
	StreamID string
}

// An RPCError is the error of a JSON-RPC response.
type RPCError struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data,omitempty"`
}

func (e *RPCError) Error() string { return fmt.Sprintf("JSON-RPC error %d: %s", e.Code, e.Message) }

// largeMessage is where a message is looked into in steps.
const largeMessage = 1 << 20

// join is the whole of a message. It takes its time for a large one.
func join(parts [][]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	var pace transport.Pace
	whole := make([]byte, 0, size)
	for _, p := range parts {
		whole = pace.Append(whole, p)
	}
	return whole
}

// validLarge reports whether a large text is JSON.
func validLarge(text []byte) bool {
	var check transport.Checker
	var pace transport.Pace
	for len(text) > 0 {
		step := text[:min(len(text), transport.StepBytes)]
		text = text[len(step):]
		if !check.Write(step) {
			return false
		}
		pace.Step()
	}
	return check.Valid()
}

// parseLarge is parseMessage in steps, so that the work on a large message of
// one client does not hold up the others.
func parseLarge(payload []byte) (Message, error) {
	if !validLarge(payload) {
		return Message{}, errors.New("no JSON-RPC message: broken JSON")
	}
	seen, err := transport.Peek(payload)
	if err != nil || seen.Kind == transport.ErrorResponse {
		return parseSmall(payload) // it says what is wrong
	}
	return Message{Payload: payload, ID: seen.ID, Method: string(seen.Method), Params: transport.Field(payload, "params"),
		Result: transport.Field(payload, "result")}, nil
}

func parseMessage(payload []byte) (Message, error) {
	if len(payload) > largeMessage {
		return parseLarge(payload)
	}
	return parseSmall(payload)
}

func parseSmall(payload []byte) (Message, error) {
	var in struct {
		ID     json.RawMessage `json:"id"`
		Method *string         `json:"method"`
		Params json.RawMessage `json:"params"`
		Result json.RawMessage `json:"result"`
		Error  *RPCError       `json:"error"`
	}
	if trimmed := bytes.TrimLeft(payload, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return Message{}, errors.New("no JSON-RPC message: no object")
	}
	if err := json.Unmarshal(payload, &in); err != nil {
		return Message{}, errors.New("no JSON-RPC message: broken or ill-typed JSON")
	}
	m := Message{Payload: payload, ID: in.ID, Params: in.Params, Result: in.Result, Error: in.Error}
	switch {
	case in.Method != nil && in.Result == nil && in.Error == nil:
		m.Method = *in.Method
	case in.Method != nil:
		return Message{}, errors.New("no JSON-RPC message: a method and an answer")
	case in.ID == nil || (in.Result == nil) == (in.Error == nil):
		return Message{}, errors.New("no JSON-RPC message: neither a method nor an answer with an id")
	}
	return m, nil
}
