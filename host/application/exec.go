package application

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/transport"
)

// maxPending bounds the requests of one peer that a program may leave without
// an answer. More are refused as overload.
const maxPending = 1 << 14

// Exec runs one process of a command per connection.
type Exec struct {
	command Command
	starter *childproc.Starter
	log     hclog.Logger

	children atomic.Int64
	inFlight atomic.Int64
	sessions sync.WaitGroup
	life     context.Context // of Run
	begun    chan struct{}   // closed when life is there

	mu    sync.Mutex // guards what follows
	cause string     // of the last failure
}

var _ App = (*Exec)(nil)

// NewExec makes the application. starter must run while it does.
func NewExec(c Command, starter *childproc.Starter, log hclog.Logger) (*Exec, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Exec{command: c, starter: starter, log: log, begun: make(chan struct{})}, nil
}

// Run implements [App].
func (e *Exec) Run(ctx context.Context) error {
	e.life = ctx
	close(e.begun)
	<-ctx.Done()
	e.sessions.Wait()
	return context.Cause(ctx)
}

// Status implements [App].
func (e *Exec) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Status{
		Driver: "per-connection", Command: e.command.name(), Ready: true,
		Children: int(e.children.Load()), InFlight: int(e.inFlight.Load()), Cause: e.cause,
	}
}

func (e *Exec) failed(cause string) {
	e.mu.Lock()
	e.cause = cause
	e.mu.Unlock()
	e.log.Warn(cause)
}

// Open implements [App].
func (e *Exec) Open(c Conn) Session {
	s := &execSession{app: e, conn: c, closed: make(chan struct{}), wake: make(chan struct{}, 1), pending: make(map[string]struct{})}
	e.sessions.Go(s.run)
	return s
}

// An execSession is one connection and its process.
type execSession struct {
	app    *Exec
	conn   Conn
	wake   chan struct{} // one slot: something is queued
	closed chan struct{} // closed by Closed

	mu       sync.Mutex // guards what follows
	queue    []byte     // frames for the process
	messages int        // in queue
	bytes    int        // of their payloads
	pending  map[string]struct{}
	over     string // why nothing is taken any more; empty while it is
}

// Deliver implements [Session].
func (s *execSession) Deliver(p []byte, m transport.Message) {
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
	s.queue = transport.AppendFrame(s.queue, p, s.app.command.Framing)
	s.messages++
	s.bytes += len(p)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Closed implements [Session].
func (s *execSession) Closed(transport.CloseReason) { close(s.closed) }

// run is the session's goroutine, from the start of the process to its end.
func (s *execSession) run() {
	select {
	case <-s.app.begun:
	case <-s.closed:
		return
	}
	ctx, cancel := context.WithCancel(s.app.life)
	defer cancel()
	ch, err := startChild(ctx, s.app.starter, s.app.command, s.app.log)
	if err != nil {
		s.app.failed(err.Error())
		s.finish(err.Error(), transport.CloseAppEnded)
		return
	}
	s.app.children.Add(1)
	defer s.app.children.Add(-1)
	defer ch.closePipes()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(ch.wait)
	work.Go(ch.logStderr)
	work.Go(func() { s.feed(ctx, ch) })
	read := make(chan struct{})
	work.Go(func() {
		defer close(read)
		s.read(ctx, ch)
	})
	select {
	case <-ch.exited:
		<-read // what it said last still reaches the peer
	case <-s.closed:
		cancel() // nobody hears what it says
		ch.stop()
		s.finish("the connection has ended", transport.CloseNormal)
		return
	case <-ctx.Done():
		ch.stop()
	}
	code := transport.CloseAppEnded
	text := ch.ending()
	switch {
	case s.app.life.Err() != nil:
		code, text = transport.CloseGoingAway, "the application is stopping"
	case ch.clean():
		code = transport.CloseNormal
	default:
		s.app.failed(text)
	}
	s.finish(text, code)
}

// finish answers what the process has left, and closes the connection.
func (s *execSession) finish(text string, code transport.CloseCode) {
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

// feed writes to the process what is queued, all of it at a time.
func (s *execSession) feed(ctx context.Context, ch *child) {
	var buf []byte
	for {
		select {
		case <-s.wake:
		case <-ch.exited:
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
		// Blocks while the process does not read; its end, or that of its stdin,
		// ends that.
		if _, err := ch.stdin.Write(buf); err != nil {
			s.conn.Consumed(messages, bytes)
			return
		}
		s.conn.Consumed(messages, bytes)
		if cap(buf) > transport.WindowBytes {
			buf = nil
		}
	}
}

// read brings the peer what the process says. A peer that is slower than the
// process makes the process wait.
func (s *execSession) read(ctx context.Context, ch *child) {
	r := transport.NewFrameReader(ch.stdout, s.app.command.Framing, s.app.command.MaxMessageBytes)
	rubbish := rubbish{log: ch.log}
	for {
		p, err := r.Next()
		if tooLarge, ok := errors.AsType[*transport.OversizeError](err); ok {
			s.oversize(ctx, ch, tooLarge)
			continue
		}
		if err != nil {
			if _, ok := errors.AsType[*transport.FramingError](err); ok {
				s.app.failed(fmt.Sprintf("application %q: %v", s.app.command.name(), err))
				_ = ch.stdin.Close() // it cannot be understood any more
			}
			_, _ = io.Copy(io.Discard, ch.stdout)
			return
		}
		m, err := transport.Peek(p)
		if err != nil {
			rubbish.note(len(p))
			continue
		}
		s.answered(m)
		if s.conn.SendWait(ctx, p) != nil {
			// The connection has ended. The process must not block on its stdout
			// until it is stopped.
			_, _ = io.Copy(io.Discard, ch.stdout)
			return
		}
	}
}

func (s *execSession) answered(m transport.Message) {
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
func (s *execSession) oversize(ctx context.Context, ch *child, e *transport.OversizeError) {
	ch.log.Warn("the application's output was dropped", "error", e.Error())
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
