package application

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// backlogBytes and backlogMessages are what may wait for one lossless peer
	// beside its out-queue, before it is behind: then notifications are left
	// out, and the application's requests go to others.
	backlogBytes    = 1 << 20
	backlogMessages = 1024
	// backlogAnswerBytes bounds the answers to the peer's own requests, which
	// are not left out: one of the largest message. Their number is bounded by
	// maxPending, and what does not fit becomes a short error.
	backlogAnswerBytes = transport.DefaultMaxMessageBytes
)

// A backlog brings messages to one connection for callers that must not wait.
// What a lossless connection has no room for waits here, in order, and is
// brought by a goroutine that lives while something waits. Connections of the
// other kind never need it: they end instead.
type backlog struct {
	conn    Conn
	crew    *crew
	leftOut *atomic.Int64 // counts what was never brought

	mu       sync.Mutex // guards what follows; held while Send queues, which does not block
	queue    [][]byte
	bytes    int
	flushing bool
	over     bool          // nothing is brought any more
	room     chan struct{} // closed when the peer is not behind any more; nil while nobody waits
	idle     chan struct{} // closed when queue is empty; nil while nobody waits
}

// answer sends the answer to a request of the peer. p is copied.
func (b *backlog) answer(p, id []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 && b.bytes+len(p) > backlogAnswerBytes {
		b.leftOut.Add(1)
		p = transport.AppendError(nil, id, transport.CodeInternalError, fmt.Sprintf("the answer was dropped: %d bytes wait for this peer, which does not read", b.bytes))
	}
	b.sendLocked(p)
}

// tell sends a notification or a request, unless the peer is behind, and
// reports whether it did. p is copied.
func (b *backlog) tell(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.behindLocked() {
		b.leftOut.Add(1)
		return false
	}
	return b.sendLocked(p)
}

func (b *backlog) sendLocked(p []byte) bool {
	if b.over {
		b.leftOut.Add(1)
		return false
	}
	if !b.flushing {
		err := b.conn.Send(p)
		if !errors.Is(err, transport.ErrOverloaded) {
			return err == nil // the connection has ended: nobody waits for p
		}
		if !b.crew.hire(b.flush) {
			b.endLocked()
			b.leftOut.Add(1)
			return false
		}
		b.flushing = true
	}
	b.queue = append(b.queue, bytes.Clone(p))
	b.bytes += len(p)
	return true
}

// flush is the goroutine.
func (b *backlog) flush() {
	<-b.crew.begun
	for {
		b.mu.Lock()
		if len(b.queue) == 0 {
			b.flushing = false
			b.mu.Unlock()
			return
		}
		p := b.queue[0]
		b.mu.Unlock()
		err := b.conn.SendWait(b.crew.life, p)
		b.mu.Lock()
		if err != nil { // the connection or the application has ended
			b.endLocked()
		} else {
			b.queue[0] = nil
			b.queue = b.queue[1:]
			b.bytes -= len(p)
			b.tellWaitersLocked()
		}
		b.mu.Unlock()
	}
}

func (b *backlog) endLocked() {
	b.over = true
	b.leftOut.Add(int64(len(b.queue)))
	b.queue, b.bytes = nil, 0
	b.tellWaitersLocked()
}

func (b *backlog) tellWaitersLocked() {
	if b.room != nil && !b.behindLocked() {
		close(b.room)
		b.room = nil
	}
	if b.idle != nil && len(b.queue) == 0 {
		close(b.idle)
		b.idle = nil
	}
}

func (b *backlog) behindLocked() bool {
	return b.bytes > backlogBytes || len(b.queue) > backlogMessages
}

// behind reports whether the peer is behind.
func (b *backlog) behind() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.behindLocked()
}

// catchUp returns what is closed when the peer is not behind any more, or nil
// if it is not now.
func (b *backlog) catchUp() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.behindLocked() {
		return nil
	}
	if b.room == nil {
		b.room = make(chan struct{})
	}
	return b.room
}

// settle blocks until nothing waits, or ctx ends.
func (b *backlog) settle(ctx context.Context) {
	b.mu.Lock()
	if len(b.queue) == 0 {
		b.mu.Unlock()
		return
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
