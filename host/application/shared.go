package application

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/transport"
)

// Shared runs one process of a command for all connections.
type Shared struct {
	command Command
	starter *childproc.Starter
	log     hclog.Logger
	policy  backoff.Policy
	x       *exchange

	mu       sync.Mutex // guards what follows
	running  bool
	restarts int
	cause    string
}

var _ App = (*Shared)(nil)

// NewShared makes the application. starter must run while it does. A zero
// policy is that of plugins.
func NewShared(c Command, starter *childproc.Starter, log hclog.Logger, policy backoff.Policy) (*Shared, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	if policy == (backoff.Policy{}) {
		policy = backoff.Default()
	}
	return &Shared{command: c, starter: starter, log: log, policy: policy, x: newExchange(c.Framing)}, nil
}

// Open implements [App].
func (s *Shared) Open(c Conn) Session { return s.x.join(c) }

// Status implements [App].
func (s *Shared) Status() Status {
	s.x.mu.Lock()
	inFlight := s.x.inLine
	s.x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Driver: "shared", Command: s.command.name(), Ready: s.running, InFlight: inFlight, Restarts: s.restarts, Cause: s.cause,
	}
	if s.running {
		st.Children = 1
	}
	return st
}

// Run implements [App]: it keeps a process running until ctx ends.
func (s *Shared) Run(ctx context.Context) error {
	b := backoff.New(s.policy, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for {
		began := time.Now()
		text := s.serve(ctx)
		if ctx.Err() != nil {
			s.x.died("the application is stopping", "the application is stopping")
			return context.Cause(ctx)
		}
		wait, giveUp := b.Failed(time.Now(), time.Since(began))
		down := ""
		if giveUp {
			// There is nobody to ask for another try, so there is one in a while.
			wait = s.policy.GiveUpWindow
			down = fmt.Sprintf("%s; it is tried again at %s", text, time.Now().Add(wait).Format(time.TimeOnly))
			b.Reset()
		}
		s.note(false, text)
		s.log.Warn(text, "next_attempt_in", wait.String(), "given_up", giveUp)
		s.x.died(text, down)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		s.mu.Lock()
		s.restarts++
		s.mu.Unlock()
	}
}

func (s *Shared) note(running bool, cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
	if cause != "" {
		s.cause = cause
	}
}

// serve runs one process and returns how it ended.
func (s *Shared) serve(ctx context.Context) string {
	ch, err := startChild(ctx, s.starter, s.command, s.log)
	if err != nil {
		return err.Error()
	}
	defer ch.closePipes()
	first := s.x.revive()
	s.note(true, "")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(ch.wait)
	work.Go(ch.logStderr)
	work.Go(func() { s.feed(ctx, ch, first) })
	read := make(chan struct{})
	work.Go(func() {
		defer close(read)
		s.read(ctx, ch)
	})
	select {
	case <-ch.exited:
		<-read // what it said last still counts
	case <-ctx.Done():
		ch.stop()
	}
	cancel()
	return ch.ending()
}

// feed writes to the process what is queued, all of it at a time.
func (s *Shared) feed(ctx context.Context, ch *child, first []byte) {
	if _, err := ch.stdin.Write(first); err != nil {
		return
	}
	var buf []byte
	for {
		var owed []debt
		buf, owed = s.x.take(buf)
		if len(buf) > 0 {
			// Blocks while the process does not read; its end, or that of its
			// stdin, ends that.
			_, err := ch.stdin.Write(buf)
			for _, d := range owed {
				d.conn.Consumed(d.messages, d.bytes)
			}
			if err != nil {
				return
			}
			if cap(buf) > transport.WindowBytes {
				buf = nil
			}
		}
		select {
		case <-s.x.wake:
		case <-ch.exited:
			return
		case <-ctx.Done():
			return
		}
	}
}

// read brings the peers what the process says. It waits for a lossless
// connection, and for no other.
func (s *Shared) read(ctx context.Context, ch *child) {
	r := transport.NewFrameReader(ch.stdout, s.command.Framing, s.command.MaxMessageBytes)
	rubbish := rubbish{log: ch.log}
	for {
		p, err := r.Next()
		if tooLarge, ok := errors.AsType[*transport.OversizeError](err); ok {
			s.oversize(ctx, ch, tooLarge)
			continue
		}
		if err != nil {
			if _, ok := errors.AsType[*transport.FramingError](err); ok {
				s.note(true, fmt.Sprintf("application %q: %v", s.command.name(), err))
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
		for _, d := range s.x.fromApplication(p, m) {
			_ = d.conn.SendWait(ctx, d.payload) // it has left
		}
	}
}

// oversize answers the asker in place of an answer over the limit.
func (s *Shared) oversize(ctx context.Context, ch *child, e *transport.OversizeError) {
	ch.log.Warn("the application's output was dropped", "error", e.Error())
	m, err := transport.Peek(e.Head)
	if err != nil || len(m.ID) == 0 || m.Kind != transport.Response && m.Kind != transport.ErrorResponse {
		return
	}
	answer := transport.AppendError(nil, m.ID, transport.CodeInternalError, fmt.Sprintf("the application's answer was dropped: %v", e))
	m, err = transport.Peek(answer)
	if err != nil { // it is ours
		return
	}
	for _, d := range s.x.fromApplication(answer, m) {
		_ = d.conn.SendWait(ctx, d.payload)
	}
}
