package pluginsdk

import (
	"context"
	"slices"
	"sync"
)

// A Message is one message of the host, as an [Inbox] gives it. Its payload
// belongs to the receiver.
type Message struct {
	Seq     Seq
	Payload []byte
}

// A ClosedError says that the host has ended the connection, and why. The
// transport answers with [Conn.Close].
type ClosedError struct{ Reason CloseReason }

func (e *ClosedError) Error() string { return "closed by the host: " + e.Reason.String() }

// Is makes errors.Is(err, ErrConnClosed) true.
func (e *ClosedError) Is(target error) bool { return target == ErrConnClosed }

// An Inbox is a [Sink] for transports that receive in a goroutine of their own.
// The window of the connection bounds it. It costs a copy and a hand-over per
// message.
type Inbox struct {
	wake chan struct{} // one slot

	mu       sync.Mutex // guards what follows
	messages []Message
	closed   *ClosedError
}

var _ Sink = (*Inbox)(nil)

// OpenInbox is [Host.Open] with a new Inbox.
func (h *Host) OpenInbox(o Opened) (*Conn, *Inbox, error) {
	b := &Inbox{wake: make(chan struct{}, 1)}
	c, err := h.Open(o, b)
	return c, b, err
}

// Receive returns the next message of the host. It blocks until there is one,
// the host closes the connection (a [*ClosedError], after all messages), or ctx
// ends. Only one goroutine may receive at a time. Call [Conn.Written] when the
// message has left.
func (b *Inbox) Receive(ctx context.Context) (Message, error) {
	for {
		b.mu.Lock()
		if len(b.messages) > 0 {
			m := b.messages[0]
			b.messages = slices.Delete(b.messages, 0, 1)
			b.mu.Unlock()
			return m, nil
		}
		closed := b.closed
		b.mu.Unlock()
		if closed != nil {
			return Message{}, closed
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return Message{}, context.Cause(ctx)
		}
	}
}

// Message implements [Sink].
func (b *Inbox) Message(seq Seq, p []byte) {
	b.mu.Lock()
	b.messages = append(b.messages, Message{Seq: seq, Payload: slices.Clone(p)})
	b.mu.Unlock()
}

// Flush implements [Sink].
func (b *Inbox) Flush() { b.wakeUp() }

// Close implements [Sink].
func (b *Inbox) Close(reason CloseReason) {
	b.mu.Lock()
	b.closed = &ClosedError{Reason: reason}
	b.mu.Unlock()
	b.wakeUp()
}

func (b *Inbox) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
