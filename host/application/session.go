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
	// gone waits for the end and reports whether it came in time.
	gone(within time.Duration) bool
	ended() <-chan struct{}
	// deaf says, for people, that the upstream takes nothing any more, as an
	// error of write shows.
	deaf(err error) string
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
	leftOut  atomic.Int64 // messages of this side that a lossless peer did not get
	crew     *crew        // a session each, and what brings their answers

	mu    sync.Mutex // guards what follows
	cause string     // of the last failure
}

var _ App = (*PerConnection)(nil)

func newPerConnection(driver, name string, log hclog.Logger) *PerConnection {
	return &PerConnection{driver: driver, name: name, log: log, crew: newCrew()}
}

// Run implements [App].
func (e *PerConnection) Run(ctx context.Context) error {
	e.crew.begin(ctx)
	<-ctx.Done()
	e.crew.dismiss()
	return context.Cause(ctx)
}

// Status implements [App].
func (e *PerConnection) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Status{
		Driver: e.driver, Command: e.name, Ready: true,
		Children: int(e.children.Load()), InFlight: int(e.inFlight.Load()), LeftOut: int(e.leftOut.Load()), Cause: e.cause,
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
	s := &connSession{app: e, conn: c, closed: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.answers = backlog{conn: c, crew: e.crew, leftOut: &e.leftOut}
	if !e.crew.hire(s.run) {
		s.over = stopping
		c.Close(transport.CloseReason{Code: transport.CloseGoingAway, Text: stopping})
	}
	return s
}

// stopping is what peers are told while the application is being stopped.
const stopping = "the application is stopping"

// A connSession is one connection and its upstream.
type connSession struct {
	app     *PerConnection
	conn    Conn
	answers backlog       // of this side
	wake    chan struct{} // one slot: something is queued
	closed  chan struct{} // closed by Closed

	mu       sync.Mutex // guards what follows
	queue    []byte     // frames for the upstream
	messages int        // in queue
	bytes    int        // of their payloads
	pending  pending
	over     string // why nothing is taken any more; empty while it is
}

// Deliver implements [Session].
func (s *connSession) Deliver(p []byte, m transport.Message) {
	s.mu.Lock()
	if s.over != "" {
		over := s.over
		s.mu.Unlock()
		s.refuse(p, m, transport.CodeInternalError, over)
		return
	}
	forgotten := 0
	if m.Kind == transport.Request {
		code, text := 0, ""
		switch {
		case len(m.ID) > maxIDBytes:
			code, text = transport.CodeInvalidRequest, longID()
		case s.pending.live() >= maxPending:
			code, text = transport.CodeOverloaded, transport.OverloadedText
		}
		if code != 0 {
			s.mu.Unlock()
			s.refuse(p, m, code, text)
			return
		}
		if s.pending.ask(m.ID) {
			s.app.inFlight.Add(1)
		} else {
			forgotten = 1 // one of the two answers counts
		}
	} else if id := cancels(p, m); id != nil && s.pending.cancel(id) {
		s.app.inFlight.Add(-1)
		forgotten = 1
	}
	s.queue = s.app.frame(s.queue, p)
	s.messages++
	s.bytes += len(p)
	s.mu.Unlock()
	if forgotten > 0 {
		s.conn.Forgotten(forgotten)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// refuse answers a message that does not reach the upstream.
func (s *connSession) refuse(p []byte, m transport.Message, code int, text string) {
	if m.Kind == transport.Request {
		s.answers.answer(transport.AppendError(nil, m.ID, code, text), m.ID)
	}
	s.conn.Consumed(1, len(p))
}

// Closed implements [Session].
func (s *connSession) Closed(transport.CloseReason) { close(s.closed) }

// A breach is how an upstream that goes on living lost one of its halves.
type breach struct {
	text string
	// sure is set if the end, should it follow at once, says less than text:
	// what an upstream loses as it ends is no cause.
	sure bool
}

// run is the session's goroutine, from the start of the upstream to its end.
func (s *connSession) run() {
	select {
	case <-s.app.crew.begun:
	case <-s.closed:
		return
	}
	life := s.app.crew.life
	ctx, cancel := context.WithCancel(life)
	defer cancel()
	up, err := s.connect(ctx)
	if err != nil {
		select {
		case <-s.closed: // it was given up
		default:
			if ctx.Err() == nil {
				s.app.failed(err.Error())
			}
		}
		s.finish(err.Error(), transport.CloseAppEnded)
		return
	}
	s.app.children.Add(1)
	defer s.app.children.Add(-1)
	defer up.release()
	var work sync.WaitGroup
	defer work.Wait()
	broken := make(chan breach, 2) // one of feed, one of read
	read := make(chan struct{})
	work.Go(up.tend)
	work.Go(func() { s.feed(ctx, up, broken) })
	work.Go(func() {
		defer close(read)
		s.read(ctx, up, broken)
	})
	var lost breach
	select {
	case <-up.ended():
	case lost = <-broken:
		if lost.sure || !up.gone(lastWords) {
			lost.sure = true
			up.stop()
		}
	case <-s.closed:
		cancel() // nobody hears what it says
		up.stop()
		s.finish("the connection has ended", transport.CloseNormal)
		return
	case <-ctx.Done():
		up.stop()
	}
	<-read // what it said last still reaches the peer
	code := transport.CloseAppEnded
	text, clean := up.ending()
	if lost.sure {
		text, clean = lost.text, false
	}
	switch {
	case life.Err() != nil:
		code, text = transport.CloseGoingAway, stopping
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

// finish answers what the process has left, and closes the connection. It waits
// for a lossless peer to take the answers.
func (s *connSession) finish(text string, code transport.CloseCode) {
	s.mu.Lock()
	s.over = text
	left := s.pending
	s.pending = pending{}
	messages, bytes := s.messages, s.bytes
	s.queue, s.messages, s.bytes = nil, 0, 0
	s.mu.Unlock()
	s.app.inFlight.Add(int64(-left.live()))
	for id, cancelled := range left.open {
		if cancelled {
			s.conn.Forgotten(-1)
		}
		s.answers.answer(transport.AppendError(nil, []byte(id), transport.CodeInternalError, text), []byte(id))
	}
	s.conn.Consumed(messages, bytes)
	s.answers.settle(s.app.crew.life)
	s.conn.Close(transport.CloseReason{Code: code, Text: text})
}

// feed writes to the upstream what is queued, all of it at a time.
func (s *connSession) feed(ctx context.Context, up upstream, broken chan<- breach) {
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
		err := up.write(buf)
		s.conn.Consumed(messages, bytes)
		if err != nil {
			broken <- breach{text: up.deaf(err)}
			return
		}
		if cap(buf) > transport.WindowBytes {
			buf = nil
		}
	}
}

// read brings the peer what the upstream says. A peer that is slower than the
// upstream makes it wait.
func (s *connSession) read(ctx context.Context, up upstream, broken chan<- breach) {
	rubbish := rubbish{log: up.logger()}
	for {
		p, err := up.next()
		if tooLarge, ok := errors.AsType[*transport.OversizeError](err); ok {
			s.oversize(ctx, up, tooLarge)
			continue
		}
		if err != nil {
			lost := breach{text: fmt.Sprintf("application %q closed its stdout", s.app.name)}
			if _, ok := errors.AsType[*transport.FramingError](err); ok {
				lost = breach{fmt.Sprintf("application %q: %v", s.app.name, err), true} // it cannot be understood any more
			}
			broken <- lost
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
	known, cancelled := s.pending.answer(m.ID)
	s.mu.Unlock()
	if known && !cancelled {
		s.app.inFlight.Add(-1)
		return
	}
	s.conn.Forgotten(-1) // it was taken out of the count, and the answer takes it out again
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
