package pluginsdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Conn is one connection between a peer and the host. Its methods may be
// called from any goroutine; only Deliver, DeliverAt and Checkpoint block.
//
// A connection ends exactly once, with [Conn.Close] by the transport. If the
// host wants it ended, it calls the sink's Close first.
type Conn struct {
	host      *Host
	id        ConnID
	sink      Sink
	resumable bool

	// Of the link's receive loop.
	joined  [][]byte // pieces of a message that is still arriving
	size    int      // of those
	touched bool     // is in the host's list of sinks to flush

	mu          sync.Mutex // guards what follows; never held across a call of the sink
	toHost      transport.SendWindow
	toPeer      transport.ReceiveWindow
	untold      int             // bytes that have left since the host heard of it
	checkpoints []chan struct{} // those who wait, oldest first
	wake        chan struct{}   // one slot; nil until a Deliver has to wait
	hostClosed  bool            // the host wants it ended
	givenUp     bool            // nothing more is delivered: the host has a part of a message
	closed      bool
}

// ID returns the connection's number on this link.
func (c *Conn) ID() ConnID { return c.id }

// Deliver hands one message of the peer to the host. It blocks while the host
// has no room for more on this connection, and waits for nobody else. It is
// called from one goroutine at a time, and does not keep payload.
//
// It returns [ErrConnClosed] once either side has closed the connection,
// [ErrTooLarge] for a message over [StartParams].MaxMessageBytes, having sent
// nothing, or the cause of ctx. If ctx ends in the middle of a large message,
// nothing more can be delivered on the connection. One that can be resumed stays
// open for the next process, which delivers the message again; any other is
// closed.
func (c *Conn) Deliver(ctx context.Context, payload []byte) error {
	return c.DeliverAt(ctx, payload, "")
}

// DeliverAt is Deliver with a note of how far the transport has read, which is
// handed back to the process that adopts the connection. A cursor is at most
// 1 KiB; empty means none.
func (c *Conn) DeliverAt(ctx context.Context, payload []byte, cursor Cursor) error {
	return c.DeliverParts(ctx, [][]byte{payload}, cursor)
}

// DeliverParts is DeliverAt for a message that is not in one piece.
func (c *Conn) DeliverParts(ctx context.Context, parts [][]byte, cursor Cursor) error {
	size := 0
	for _, part := range parts {
		size += len(part)
	}
	if limit := c.host.params.MaxMessageBytes; size > limit {
		return fmt.Errorf("message of %d bytes, limit %d: %w", size, limit, ErrTooLarge)
	}
	if len(cursor) > transport.MaxCursorBytes {
		return fmt.Errorf("cursor of %d bytes, limit %d: %w", len(cursor), transport.MaxCursorBytes, ErrTooLarge)
	}
	if size <= transport.PieceBytes {
		if len(parts) != 1 {
			parts = [][]byte{bytes.Join(parts, nil)}
		}
		return c.deliverPiece(ctx, parts[0], cursor, true, true, false)
	}
	gone, rests := 0, 0
	for _, part := range parts {
		for len(part) > 0 {
			if size > transport.LargeBytes && gone/transport.LargeWindowBytes > rests {
				rests++
				time.Sleep(transport.LargeRest)
			}
			piece := part[:transport.Piece(len(part), size)]
			part = part[len(piece):]
			first := gone == 0
			gone += len(piece)
			if err := c.deliverPiece(ctx, piece, cursor, first, gone == size, true); err != nil {
				if !first && !errors.Is(err, ErrConnClosed) {
					c.giveUp()
				}
				return err
			}
		}
	}
	return nil
}

// giveUp is after a part of a message that the rest does not follow. The host
// forgets the part when it gives the connection to the next process; until then
// nothing may come that it would take for the rest.
func (c *Conn) giveUp() {
	if !c.resumable {
		c.Close(transport.Because(CloseInternal, "the delivery of a message was given up halfway"))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.givenUp = true
}

func (c *Conn) deliverPiece(ctx context.Context, piece []byte, cursor Cursor, first, last, large bool) error {
	if !last {
		cursor = ""
	}
	return c.withCredit(ctx, len(piece), first, last, large, func() {
		c.host.server.Received(c.id, piece, cursor, !last)
	})
}

// Reject tells the host that the peer sent what is no message, for it to answer
// in its order with the others, and how far the transport has read. It is called
// by the goroutine that delivers, blocks like [Conn.Deliver] and returns its
// errors.
func (c *Conn) Reject(ctx context.Context, r Rejection) error {
	if len(r.Cursor) > transport.MaxCursorBytes {
		return fmt.Errorf("cursor of %d bytes, limit %d: %w", len(r.Cursor), transport.MaxCursorBytes, ErrTooLarge)
	}
	return c.withCredit(ctx, 0, true, true, false, func() { c.host.server.Rejected(c.id, r) })
}

// withCredit calls send once the host has room for a piece of n bytes.
func (c *Conn) withCredit(ctx context.Context, n int, first, last, large bool, send func()) error {
	if err := c.host.server.WaitRoom(ctx); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		if c.closed || c.hostClosed || c.givenUp {
			c.mu.Unlock()
			return ErrConnClosed
		}
		if c.toHost.Fits(n, first, large) {
			c.toHost.Take(n, last, large)
			send() // under the lock: nothing may follow a Closed on the wire
			c.mu.Unlock()
			return nil
		}
		if c.wake == nil {
			c.wake = make(chan struct{}, 1)
		}
		wake := c.wake
		c.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Written says that so many messages of the host, and so many of their bytes
// (as they were given to [Sink].Message), have left for the peer: the host may
// send as much again. Bytes may be counted before their message is complete.
func (c *Conn) Written(messages, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	credit := c.toPeer.Consumed(messages, bytes)
	c.untold += bytes
	if credit == (transport.Credit{}) && c.untold < transport.WindowBytes/4 {
		return
	}
	// The pieces of a large message were returned as they came. That the peer
	// takes them is told all the same: it is no slow one.
	c.untold = 0
	if !c.closed {
		c.host.server.Credit(c.id, credit)
	}
}

// Ack says that the messages up to seq are safe: they will not be sent again
// to a process that adopts the connection.
func (c *Conn) Ack(seq Seq) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.host.server.Acked(c.id, seq)
	}
}

// Checkpoint gives the host up to 4 KiB to remember for the process that
// adopts the connection, and returns once it is stored. It returns
// [ErrConnClosed], [ErrTooLarge] or the cause of ctx.
func (c *Conn) Checkpoint(ctx context.Context, data []byte) error {
	if len(data) > transport.MaxCheckpointBytes {
		return fmt.Errorf("checkpoint of %d bytes, limit %d: %w", len(data), transport.MaxCheckpointBytes, ErrTooLarge)
	}
	stored := make(chan struct{})
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrConnClosed
	}
	c.checkpoints = append(c.checkpoints, stored)
	c.host.server.Checkpoint(c.id, data)
	c.mu.Unlock()
	select {
	case <-stored:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			return ErrConnClosed
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Finish says that the peer sends no more, and still reads. The host answers
// what is in flight and then closes the connection.
func (c *Conn) Finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.host.server.Finished(c.id)
	}
}

// Close ends the connection. It does not block; further calls do nothing.
func (c *Conn) Close(reason CloseReason) {
	c.mu.Lock()
	if !c.closed {
		c.host.server.Closed(c.id, reason)
	}
	c.endLocked()
	c.mu.Unlock()
	c.host.forget(c.id)
}

// endLocked releases everybody who waits on the connection.
func (c *Conn) endLocked() {
	c.closed = true
	for _, stored := range c.checkpoints {
		close(stored)
	}
	c.checkpoints = nil
	c.wakeLocked()
}

func (c *Conn) wakeLocked() {
	if c.wake == nil {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default: // it has been woken
	}
}

// lose ends the connection because the link has ended.
func (c *Conn) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked()
}

// What follows is called by the link's receive loop.

// message takes one piece from the host and gives the sink whole messages.
func (c *Conn) message(seq Seq, piece []byte, more bool) error {
	c.mu.Lock()
	credit, err := c.toPeer.Arrived(len(piece), more)
	closing := c.closed || c.hostClosed
	if err == nil && !closing && credit != (transport.Credit{}) {
		c.host.server.Credit(c.id, credit)
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("connection %d: %w", c.id, err)
	}
	if closing {
		return nil
	}
	if !more && len(c.joined) == 0 {
		c.sink.Message(seq, piece)
		return nil
	}
	if limit := c.host.params.MaxMessageBytes; c.size+len(piece) > limit {
		return fmt.Errorf("connection %d: message of more than %d bytes from the host: %w", c.id, limit, ErrTooLarge)
	}
	c.joined = append(c.joined, bytes.Clone(piece))
	c.size += len(piece)
	if !more {
		pieces := c.joined
		c.joined, c.size = nil, 0
		if s, ok := c.sink.(PieceSink); ok {
			s.Pieces(seq, pieces)
		} else {
			c.sink.Message(seq, bytes.Join(pieces, nil))
		}
	}
	return nil
}

func (c *Conn) credit(credit transport.Credit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.toHost.Return(credit); err != nil {
		return fmt.Errorf("connection %d: %w", c.id, err)
	}
	c.wakeLocked()
	return nil
}

func (c *Conn) closeByHost(reason CloseReason) {
	c.mu.Lock()
	again := c.hostClosed || c.closed
	c.hostClosed = true
	c.wakeLocked()
	c.mu.Unlock()
	if !again {
		c.sink.Close(reason)
	}
}

func (c *Conn) checkpointed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.checkpoints) > 0 {
		close(c.checkpoints[0])
		c.checkpoints = c.checkpoints[1:]
	}
}
