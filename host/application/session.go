package application

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// maxPending bounds the requests of one peer that a program may leave without
// an answer. More are refused as overload.
const maxPending = 1 << 14

// An upstream is the application's end of one connection. Every method may be
// called while others run, but each of write, next and drain by one goroutine.
type upstream interface {
	// tend does what the upstream needs beside being written and read, until it
	// has ended.
	tend()
	// write sends frames, as the driver wrote them to the queue. It blocks
	// while the other side does not read, and no longer than the upstream lives.
	write(frames []byte) error
	// next returns the next message, on loan until the following call; its
	// errors are those of [transport.FrameReader].
	next() ([]byte, error)
	// drain reads on and throws away, until the upstream has ended.
	drain()
	// finish says that no more is sent.
	finish()
	// stop ends the upstream and returns when it is gone.
	stop()
	ended() <-chan struct{}
	// ending says, after the end, how it came; clean if that is no failure.
	ending() (text string, clean bool)
	// release frees what the upstream holds; nothing is called afterwards.
	release()
	logger() hclog.Logger
}

// PerConnection is an application with an upstream of its own for every
// connection: a process of a command, or a socket of a server.
type PerConnection struct {
	driver  string // for the status
	name    string
	frame   func(dst, payload []byte) []byte // how the queue for an upstream is written
	connect func(ctx context.Context) (upstream, error)
	log     hclog.Logger

	children atomic.Int64
	inFlight atomic.Int64
	sessions sync.WaitGroup
	life     context.Context // of Run
	begun    chan struct{}   // closed when life is there

	mu    sync.Mutex // guards what follows
	cause string     // of the last failure
}

var _ App = (*PerConnection)(nil)

func newPerConnection(driver, name string, log hclog.Logger) *PerConnection {
	return &PerConnection{driver: driver, name: name, log: log, begun: make(chan struct{})}
}

// Run implements [App].
func (e *PerConnection) Run(ctx context.Context) error {
	e.life = ctx
	close(e.begun)
	<-ctx.Done()
	e.sessions.Wait()
	return context.Cause(ctx)
}

// Status implements [App].
func (e *PerConnection) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Status{
		Driver: e.driver, Command: e.name, Ready: true,
		Children: int(e.children.Load()), InFlight: int(e.inFlight.Load()), Cause: e.cause,
	}
}

func (e *PerConnection) failed(cause string) {
	e.mu.Lock()
	e.cause = cause
	e.mu.Unlock()
	e.log.Warn(cause)
}

// Open implements [App].
func (e *PerConnection) Open(c Conn) Session {
	s := &connSession{app: e, conn: c, closed: make(chan struct{}), wake: make(chan struct{}, 1), pending: make(map[string]struct{})}
	e.sessions.Go(s.run)
	return s
}

// A connSession is one connection and its upstream.
type connSession struct {
	app    *PerConnection
	conn   Conn
	wake   chan struct{} // one slot: something is queued
	closed chan struct{} // closed by Closed

	mu       sync.Mutex // guards what follows
	queue    []byte     // frames for the upstream
	messages int        // in queue
	bytes    int        // of their payloads
	pending  map[string]struct{}
	over     string // why nothing is taken any more; empty while it is
}

// Deliver implements [Session].
func (s *connSession) Deliver(p []byte, m transport.Message) {
	s.mu.Lock()
	if s.over != "" {
		over := s.over
		s.mu.Unlock()
		if m.Kind == transport.Request {
			_ = s.conn.Send(transport.AppendError(nil, m.ID, transport.CodeInternalError, over)) // the connection is ending
		}
		s.conn.Consumed(1, len(p))
		return
	}
	if m.Kind == transport.Request {
		if len(s.pending) >= maxPending {
			s.mu.Unlock()
			_ = s.conn.Send(transport.AppendError(nil, m.ID, transport.CodeOverloaded, transport.OverloadedText))
			s.conn.Consumed(1, len(p))
			return
		}
		if _, again := s.pending[string(m.ID)]; !again {
			s.pending[string(m.ID)] = struct{}{}
			s.app.inFlight.Add(1)
		}
	}
	s.queue = s.app.frame(s.queue, p)
	s.messages++
	s.bytes += len(p)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Closed implements [Session].
func (s *connSession) Closed(transport.CloseReason) { close(s.closed) }

// run is the session's goroutine, from the start of the upstream to its end.
func (s *connSession) run() {
	select {
	case <-s.app.begun:
	case <-s.closed:
		return
	}
	ctx, cancel := context.WithCancel(s.app.life)
	defer cancel()
	up, err := s.connect(ctx)
	if err != nil {
		if s.app.life.Err() == nil && ctx.Err() == nil {
			s.app.failed(err.Error())
		}
		s.finish(err.Error(), transport.CloseAppEnded)
		return
	}
	s.app.children.Add(1)
	defer s.app.children.Add(-1)
	defer up.release()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(up.tend)
	work.Go(func() { s.feed(ctx, up) })
	read := make(chan struct{})
	work.Go(func() {
		defer close(read)
		s.read(ctx, up)
	})
	select {
	case <-up.ended():
		<-read // what it said last still reaches the peer
	case <-s.closed:
		cancel() // nobody hears what it says
		up.stop()
		s.finish("the connection has ended", transport.CloseNormal)
		return
	case <-ctx.Done():
		up.stop()
	}
	code := transport.CloseAppEnded
	text, clean := up.ending()
	switch {
	case s.app.life.Err() != nil:
		code, text = transport.CloseGoingAway, "the application is stopping"
	case clean:
		code = transport.CloseNormal
	default:
		s.app.failed(text)
	}
	s.finish(text, code)
}

// connect is given up when the peer leaves meanwhile.
func (s *connSession) connect(ctx context.Context) (upstream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-s.closed:
			cancel(transport.ErrConnClosed)
		case <-done:
		}
	}()
	return s.app.connect(ctx)
}

// finish answers what the process has left, and closes the connection.
func (s *connSession) finish(text string, code transport.CloseCode) {
	s.mu.Lock()
	s.over = text
	pending := s.pending
	s.pending = nil
	messages, bytes := s.messages, s.bytes
	s.queue, s.messages, s.bytes = nil, 0, 0
	s.mu.Unlock()
	s.app.inFlight.Add(int64(-len(pending)))
	for id := range pending {
		if s.conn.Send(transport.AppendError(nil, []byte(id), transport.CodeInternalError, text)) != nil {
			break
		}
	}
	s.conn.Consumed(messages, bytes)
	s.conn.Close(transport.CloseReason{Code: code, Text: text})
}

// feed writes to the upstream what is queued, all of it at a time.
func (s *connSession) feed(ctx context.Context, up upstream) {
	var buf []byte
	for {
		select {
		case <-s.wake:
		case <-up.ended():
			return
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		buf, s.queue = s.queue, buf[:0]
		messages, bytes := s.messages, s.bytes
		s.messages, s.bytes = 0, 0
		s.mu.Unlock()
		if len(buf) == 0 {
			continue
		}
		// Blocks while the upstream does not read; its end ends that.
		if err := up.write(buf); err != nil {
			s.conn.Consumed(messages, bytes)
			return
		}
		s.conn.Consumed(messages, bytes)
		if cap(buf) > transport.WindowBytes {
			buf = nil
		}
	}
}

// read brings the peer what the upstream says. A peer that is slower than the
// upstream makes it wait.
func (s *connSession) read(ctx context.Context, up upstream) {
	rubbish := rubbish{log: up.logger()}
	for {
		p, err := up.next()
		if tooLarge, ok := errors.AsType[*transport.OversizeError](err); ok {
			s.oversize(ctx, up, tooLarge)
			continue
		}
		if err != nil {
			if _, ok := errors.AsType[*transport.FramingError](err); ok {
				s.app.failed(fmt.Sprintf("application %q: %v", s.app.name, err))
				up.finish() // it cannot be understood any more
			}
			up.drain()
			return
		}
		m, err := transport.Peek(p)
		if err != nil {
			rubbish.note(len(p))
			continue
		}
		s.answered(m)
		if s.conn.SendWait(ctx, p) != nil {
			// The connection has ended. The upstream must not block on what it
			// says until it is stopped.
			up.drain()
			return
		}
	}
}

func (s *connSession) answered(m transport.Message) {
	if m.Kind != transport.Response && m.Kind != transport.ErrorResponse {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.pending[string(m.ID)]; ok {
		delete(s.pending, string(m.ID))
		s.app.inFlight.Add(-1)
	}
}

// oversize answers the asker in place of an answer over the limit.
func (s *connSession) oversize(ctx context.Context, up upstream, e *transport.OversizeError) {
	up.logger().Warn("the application's output was dropped", "error", e.Error())
	m, err := transport.Peek(e.Head)
	if err != nil || len(m.ID) == 0 || m.Kind == transport.Request {
		return
	}
	s.answered(m)
	text := fmt.Sprintf("the application's answer was dropped: %v", e)
	_ = s.conn.SendWait(ctx, transport.AppendError(nil, m.ID, transport.CodeInternalError, text)) // ended: nobody asks any more
}

// rubbish counts what a program prints that is no message, and says so once a
// second at most.
type rubbish struct {
	log   hclog.Logger
	said  time.Time
	lines int
}

func (r *rubbish) note(size int) {
	r.lines++
	if now := time.Now(); now.Sub(r.said) >= time.Second {
		r.log.Warn("the application printed something that is not a JSON-RPC message; it is dropped", "bytes", size, "lines", r.lines)
		r.said, r.lines = now, 0
	}
}
