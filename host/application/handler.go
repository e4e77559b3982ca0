package application

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Handler is an application written in Go.
type Handler interface {
	// ServeConn serves one connection, in a goroutine of its own, and returns
	// when it is done with it: that closes the connection. After an error the
	// connection is closed as an internal error with its text. ctx ends with
	// the application; c.Receive returns io.EOF when the peer has left.
	ServeConn(ctx context.Context, c *HandlerConn) error
}

// A HandlerFunc is a function as a [Handler].
type HandlerFunc func(ctx context.Context, c *HandlerConn) error

// ServeConn implements [Handler].
func (f HandlerFunc) ServeConn(ctx context.Context, c *HandlerConn) error { return f(ctx, c) }

// A HandlerConn is one connection, as a [Handler] sees it.
type HandlerConn struct {
	conn    Conn
	answers backlog       // of this side
	wake    chan struct{} // one slot

	mu     sync.Mutex // guards what follows
	queue  [][]byte
	closed bool
	open   pending // requests that are received and not answered
}

// Peer returns what the transport knows of the peer.
func (c *HandlerConn) Peer() transport.Peer { return c.conn.Peer() }

// Origin returns the name of the transport instance.
func (c *HandlerConn) Origin() string { return c.conn.Origin() }

// Receive returns the peer's next message, which belongs to the caller. It
// blocks until there is one, and returns io.EOF when the peer has left, or the
// cause of ctx. Only one goroutine may receive at a time.
func (c *HandlerConn) Receive(ctx context.Context) ([]byte, error) {
	for {
		c.mu.Lock()
		if len(c.queue) > 0 {
			p := c.queue[0]
			c.queue = c.queue[1:]
			c.mu.Unlock()
			c.conn.Consumed(1, len(p))
			return p, nil
		}
		closed := c.closed
		c.mu.Unlock()
		if closed {
			return nil, io.EOF
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Send sends one message to the peer; p is copied. It blocks while the peer is
// slow, and returns [transport.ErrConnClosed] when it has left, or the cause of
// ctx. It may be called from any goroutine.
func (c *HandlerConn) Send(ctx context.Context, p []byte) error {
	if m, err := transport.Peek(p); err == nil && (m.Kind == transport.Response || m.Kind == transport.ErrorResponse) {
		c.mu.Lock()
		known, cancelled := c.open.answer(m.ID)
		c.mu.Unlock()
		if !known || cancelled {
			c.conn.Forgotten(-1) // it was taken out of the count, and the answer takes it out again
		}
	}
	return c.conn.SendWait(ctx, p)
}

// Deliver implements [Session].
func (c *HandlerConn) Deliver(p []byte, m transport.Message) {
	forgotten := 0
	c.mu.Lock()
	if m.Kind == transport.Request {
		code, text := 0, ""
		switch {
		case len(m.ID) > maxIDBytes:
			code, text = transport.CodeInvalidRequest, longID()
		case c.open.live() >= maxPending:
			code, text = transport.CodeOverloaded, transport.OverloadedText
		}
		if code != 0 {
			c.mu.Unlock()
			c.answers.answer(transport.AppendError(nil, m.ID, code, text), m.ID)
			c.conn.Consumed(1, len(p))
			return
		}
		if !c.open.ask(m.ID) {
			forgotten = 1 // one of the two answers counts
		}
	} else if id := cancels(p, m); id != nil && c.open.cancel(id) {
		forgotten = 1
	}
	c.queue = append(c.queue, slices.Clone(p))
	c.mu.Unlock()
	if forgotten > 0 {
		c.conn.Forgotten(forgotten)
	}
	c.signal()
}

// Closed implements [Session].
func (c *HandlerConn) Closed(transport.CloseReason) {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
}

func (c *HandlerConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// HandlerApp serves connections with a [Handler].
type HandlerApp struct {
	handler Handler
	log     hclog.Logger
	leftOut atomic.Int64 // messages of this side that a lossless peer did not get
	crew    *crew        // a goroutine for each connection, and what brings answers
}

var _ App = (*HandlerApp)(nil)

// NewHandlerApp makes the application.
func NewHandlerApp(h Handler, log hclog.Logger) *HandlerApp {
	return &HandlerApp{handler: h, log: log, crew: newCrew()}
}

// Run implements [App]. It waits for the handlers after ctx's end.
func (a *HandlerApp) Run(ctx context.Context) error {
	a.crew.begin(ctx)
	<-ctx.Done()
	a.crew.dismiss()
	return context.Cause(ctx)
}

// Status implements [App].
func (a *HandlerApp) Status() Status {
	return Status{Driver: "handler", Ready: true, LeftOut: int(a.leftOut.Load())}
}

// Open implements [App].
func (a *HandlerApp) Open(conn Conn) Session {
	c := &HandlerConn{conn: conn, wake: make(chan struct{}, 1)}
	c.answers = backlog{conn: conn, crew: a.crew, leftOut: &a.leftOut}
	if !a.crew.hire(func() {
		<-a.crew.begun
		err := a.serve(c)
		c.finish(a.crew.life, err)
	}) {
		conn.Close(transport.CloseReason{Code: transport.CloseGoingAway, Text: stopping})
	}
	return c
}

// serve calls the handler. A panic of it ends its connection, and nothing else.
func (a *HandlerApp) serve(c *HandlerConn) (err error) {
	defer func() {
		if r := recover(); r != nil {
			a.log.Error("the handler panicked", "connection", c.conn.ID(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("the application panicked")
		}
	}()
	return a.handler.ServeConn(a.crew.life, c)
}

// finish answers what the handler left open, and closes the connection. It
// waits for a lossless peer to take the answers.
func (c *HandlerConn) finish(ctx context.Context, err error) {
	reason := transport.CloseReason{Code: transport.CloseNormal, Text: "the application is done"}
	if err != nil && err != io.EOF {
		reason = transport.CloseReason{Code: transport.CloseInternal, Text: err.Error()}
	}
	c.mu.Lock()
	left := c.open
	c.open = pending{}
	queue := c.queue
	c.queue = nil
	c.mu.Unlock()
	for id, cancelled := range left.open {
		if cancelled {
			c.conn.Forgotten(-1)
		}
		c.answers.answer(transport.AppendError(nil, []byte(id), transport.CodeInternalError, reason.Text), []byte(id))
	}
	for _, p := range queue {
		c.conn.Consumed(1, len(p))
	}
	c.answers.settle(ctx)
	c.conn.Close(reason)
}
