package backend

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// maxPending bounds what a client has waiting for a host; a test sends
	// 10,000 messages at once.
	maxPending = 100_000
	// maxInbox bounds what a client has received and nobody has taken.
	maxInbox = 100_000

	websocketText = websocket.TextMessage
)

// Errors of a virtual client.
var (
	// ErrClientClosed is returned for a client after Close or Vanish.
	ErrClientClosed = errors.New("the virtual client is closed")
	// ErrFull is returned if more waits than a queue holds.
	ErrFull = errors.New("the queue is full")
)

// ClientOptions describes a virtual client. The zero value has a made-up id
// and leaves the name of its stream to the host, as old clients do.
type ClientOptions struct {
	ID           string
	StreamID     string    // "": envelopes without one
	ServerID     string    // the only host to carry it; "": the one that connected last
	FirstSeq     uint64    // number of its first message
	NoSeq        bool      // messages without a number
	Acks         AckPolicy // 0: AckSegments
	SegmentBytes int       // cut messages longer than this into pieces of so many bytes; 0: as 6.14 says
}

// A Client is one remote participant. What it sends is kept until a host has
// it, over any number of links. All methods are safe for concurrent use.
type Client struct {
	b      *Backend
	id     string
	stream string
	server string
	noSeq  bool
	piece  int

	// Guarded by Backend.mu.
	acks     AckPolicy
	seq      uint64 // of the next message
	learned  string // stream that the host chose
	pending  []*delivery
	closed   bool
	inbox    []Message
	overflow bool
	changed  bell
	calls    map[string]chan Message // by the text of the id
	callID   uint64
	pings    []chan Pong
}

// A Pong is the answer to a ping.
type Pong struct {
	Status   string // "active" or "unknown"
	StreamID string
	Seq      uint64
}

// Open makes a virtual client. It sends nothing: the first message should be
// an initialize.
func (b *Backend) Open(o ClientOptions) (*Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &Client{b: b, id: cmp.Or(o.ID, "client-"+strings.ToLower(rand.Text()[:10])), stream: o.StreamID, server: o.ServerID,
		noSeq: o.NoSeq, piece: o.SegmentBytes, acks: cmp.Or(o.Acks, AckSegments), seq: o.FirstSeq, calls: map[string]chan Message{}}
	for _, other := range b.clients {
		if other.id == c.id && other.stream == c.stream {
			return nil, fmt.Errorf("opening client %q, stream %q: it is there already", c.id, c.stream)
		}
	}
	if b.closed {
		return nil, fmt.Errorf("opening a client: %w", ErrClosed)
	}
	b.clients = append(b.clients, c)
	return c, nil
}

// ID is the client id.
func (c *Client) ID() string { return c.id }

// StreamID is the stream, "" while the host has not chosen one.
func (c *Client) StreamID() string {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return cmp.Or(c.stream, c.learned)
}

func (c *Client) streamID() string { return c.StreamID() }

// SetAcks changes what the client acknowledges by itself, from the next
// envelope on.
func (c *Client) SetAcks(p AckPolicy) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.acks = p
}

// Send queues a JSON-RPC message, whose bytes go out as they are. It returns
// once the message is queued. Send keeps message.
func (c *Client) Send(message json.RawMessage) error {
	piece, err := c.pieceFor(message) // first: what is too large need not be read
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	m, err := parseMessage(message)
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := c.usable(); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	d := &delivery{client: c, kind: clientMessage, payload: message, piece: piece}
	if !c.noSeq {
		seq := c.seq
		d.seq = &seq
		c.seq++
	}
	if m.Method == "initialize" {
		// The host may forget what the connection before this one had to say.
		if st := b.streams[streamKey{c.id, cmp.Or(c.stream, c.learned)}]; st != nil {
			st.freed = true
		}
	}
	c.queue(d)
	return nil
}

func (c *Client) usable() error {
	switch {
	case c.closed:
		return ErrClientClosed
	case len(c.pending) >= maxPending:
		return fmt.Errorf("%d messages wait for a host: %w", len(c.pending), ErrFull)
	}
	return nil
}

// queue hands a delivery to whoever carries the client. b.mu is held.
func (c *Client) queue(d *delivery) {
	c.known()
	c.pending = append(c.pending, d)
	if l := c.b.carrier(c); l != nil {
		l.stir()
	}
}

// known makes the host's envelopes for the client asked for. b.mu is held.
func (c *Client) known() {
	c.b.known[streamKey{c.id, ""}] = true
	c.b.known[streamKey{c.id, c.stream}] = true
}

// pieceFor says how a message is cut, 0 for not at all.
func (c *Client) pieceFor(message []byte) (int, error) {
	if !c.b.opts.Profile.chunks() || c.stream == "" {
		return 0, nil // a segment without a stream is dropped
	}
	if c.piece > 0 {
		if len(message) <= c.piece {
			return 0, nil
		}
		if ceilDiv(len(message), c.piece) > maxSegments {
			return 0, fmt.Errorf("pieces of %d bytes: %w", c.piece, ErrMessageTooLarge)
		}
		return c.piece, nil
	}
	highest := uint64(math.MaxUint64) // the longest number, so that it does not matter which one it gets
	head := clientEnvelope{kind: clientMessageChunk, clientID: c.id, streamID: c.stream, seq: &highest, segment: &Segment{Size: len(message)}}
	overhead := len(head.encode()) + envelopeMargin
	if overhead+len(message) <= maxEnvelope {
		return 0, nil
	}
	return segmentBytes(len(message), overhead)
}

// leave takes d, which is sent, out of what waits. b.mu is held.
func (c *Client) leave(d *delivery) {
	if len(c.pending) > 0 && c.pending[0] == d { // not after Vanish
		c.pending = c.pending[1:]
	}
	if d.kind == clientClosed {
		c.forget()
	}
}

// forget removes a client whose end is on its way. b.mu is held.
func (c *Client) forget() {
	b := c.b
	b.clients = slices.DeleteFunc(b.clients, func(other *Client) bool { return other == c })
	if st := b.streams[streamKey{c.id, cmp.Or(c.stream, c.learned)}]; st != nil {
		st.freed = true
	}
}

// Close ends the client: the host gets a client_closed behind what was sent
// before. Calls under way fail with [ErrClientClosed]. It does not wait for
// the host. A second Close does nothing.
func (c *Client) Close() {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.closed {
		return
	}
	c.end()
	c.queue(&delivery{client: c, kind: clientClosed})
}

// Vanish ends the client without telling the host, which has to find out by
// itself. What was not sent yet is thrown away.
func (c *Client) Vanish() {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.closed {
		return
	}
	c.end()
	c.pending = nil
	c.forget()
}

func (c *Client) end() {
	c.closed = true
	for id, answer := range c.calls {
		close(answer)
		delete(c.calls, id)
	}
	c.changed.ring()
}

// receive takes a message of the host: the answer to a call, or one for
// Receive. b.mu is held.
func (c *Client) receive(m Message) {
	if m.Method == "" {
		if answer, ok := c.calls[string(m.ID)]; ok {
			delete(c.calls, string(m.ID))
			answer <- m // holds one
			return
		}
	}
	if len(c.inbox) >= maxInbox {
		c.overflow = true
	} else {
		c.inbox = append(c.inbox, m)
	}
	c.changed.ring()
}

// Receive waits for the next notification, request, or answer that no Call
// waits for. After Close it still returns what had come before.
func (c *Client) Receive(ctx context.Context) (Message, error) {
	var m Message
	var fail error
	err := c.b.await(ctx, &c.changed, func() bool {
		switch {
		case len(c.inbox) > 0:
			m = c.inbox[0]
			c.inbox = c.inbox[1:]
		case c.overflow:
			fail = fmt.Errorf("more than %d messages were not received: %w", maxInbox, ErrFull)
		case c.closed:
			fail = ErrClientClosed
		default:
			return false
		}
		return true
	})
	if err = cmp.Or(err, fail); err != nil {
		return Message{}, fmt.Errorf("receiving: %w", err)
	}
	return m, nil
}

// Ping asks the host whether it knows the client. It waits for a link, and
// then for the pong; a ping that is lost with its link is not sent again.
func (c *Client) Ping(ctx context.Context) (Pong, error) {
	b := c.b
	answer := make(chan Pong, 1) // the receiving side does not wait
	err := b.await(ctx, &b.changed, func() bool {
		l := b.carrier(c)
		if l == nil {
			return false
		}
		c.known()
		e := clientEnvelope{kind: pingEnvelope, clientID: c.id, streamID: c.stream, cursor: b.cursor(l.sentUpTo)}
		if l.queue(controlFrame{websocketText, e.encode()}) != nil {
			return false
		}
		c.pings = append(c.pings, answer)
		return true
	})
	if err != nil {
		return Pong{}, fmt.Errorf("sending a ping: %w", err)
	}
	select {
	case p := <-answer:
		return p, nil
	case <-b.done:
		return Pong{}, fmt.Errorf("awaiting a pong: %w", ErrClosed)
	case <-ctx.Done():
		return Pong{}, fmt.Errorf("awaiting a pong: %w", context.Cause(ctx))
	}
}

// ponged answers all pings: a host may answer several with one pong. b.mu is
// held.
func (c *Client) ponged(p Pong) {
	for _, answer := range c.pings {
		answer <- p
	}
	c.pings = nil
}

// queue puts a frame before all messages. Backend.mu is held.
func (l *link) queue(f controlFrame) error {
	if len(l.control) >= maxControl {
		return fmt.Errorf("%d frames wait: %w", maxControl, ErrFull)
	}
	l.control = append(l.control, f)
	l.stir()
	return nil
}

// NewStreamID is a UUIDv7, as clients name their streams.
func NewStreamID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails
	ms := time.Now().UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
