package application

import (
	"cmp"
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

	initializeLimit time.Duration // see the constant of the same name

	mu       sync.Mutex // guards what follows
	running  bool
	restarts int
	cause    string
}

var _ App = (*Shared)(nil)

// initializeLimit is what a process that takes another's place gets to answer
// the initialize of that one: all peers wait meanwhile.
const initializeLimit = 30 * time.Second

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
	if err := policy.Validate(); err != nil {
		return nil, fmt.Errorf("the restart policy of the application: %w", err)
	}
	return &Shared{
		command: c, starter: starter, log: log, policy: policy, x: newExchange(c.Framing), initializeLimit: initializeLimit,
	}, nil
}

// Open implements [App].
func (s *Shared) Open(c Conn) Session { return s.x.join(c) }

// Status implements [App].
func (s *Shared) Status() Status {
	s.x.mu.Lock()
	st := Status{
		Driver: "shared", Command: s.command.name(), InFlight: s.x.inLine,
		Late: s.x.late, Dropped: s.x.dropped, LeftOut: int(s.x.leftOut.Load()),
	}
	s.x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Ready, st.Restarts, st.Cause = s.running, s.restarts, s.cause
	if s.running {
		st.Children = 1
	}
	return st
}

// Run implements [App]: it keeps a process running until ctx ends.
func (s *Shared) Run(ctx context.Context) error {
	s.x.crew.begin(ctx)
	defer s.x.crew.dismiss()
	b := backoff.New(s.policy, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for {
		began := time.Now()
		text := s.serve(ctx)
		if ctx.Err() != nil {
			s.x.died(stopping, stopping)
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
		s.note(false, cmp.Or(down, text))
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
	broken := make(chan breach, 2) // one of feed, one of read
	work.Go(ch.wait)
	work.Go(ch.logStderr)
	work.Go(func() { s.feed(ctx, ch, first, broken) })
	read := make(chan struct{})
	work.Go(func() {
		defer close(read)
		s.read(ctx, ch, broken)
	})
	var overdue <-chan time.Time
	if first != nil {
		t := time.NewTimer(s.initializeLimit)
		defer t.Stop()
		overdue = t.C
	}
	cause := s.watch(ctx, ch, broken, overdue)
	<-read // what it said last still counts; ch's end ends every wait of it
	if cause != "" {
		return cause
	}
	return ch.ending()
}

// watch returns when the process is gone, by itself or because it had to. Its
// result is why it had to, unless ctx's end is.
func (s *Shared) watch(ctx context.Context, ch *child, broken <-chan breach, overdue <-chan time.Time) (cause string) {
	for {
		select {
		case <-ch.exited:
			return ""
		case lost := <-broken:
			if !lost.sure && ch.gone(lastWords) {
				return ""
			}
			cause = lost.text
		case <-overdue:
			if !s.x.replaying() {
				overdue = nil
				continue
			}
			cause = fmt.Sprintf("application %q did not answer initialize within %v of its restart", s.command.name(), s.initializeLimit)
		case <-ctx.Done():
		}
		ch.stop()
		return cause
	}
}

// feed writes to the process what is queued, as much as there is at a time.
func (s *Shared) feed(ctx context.Context, ch *child, first []byte, broken chan<- breach) {
	buf := first
	var items []inbound
	for {
		if len(buf) > 0 {
			// Blocks while the process does not read; its end, or that of its
			// stdin, ends that.
			_, err := ch.stdin.Write(buf)
			repay(items)
			clear(items)
			if err != nil {
				broken <- breach{text: fmt.Sprintf("application %q closed its stdin", s.command.name())}
				return
			}
			if cap(buf) > transport.WindowBytes {
				buf = nil
			}
		}
		items, buf = s.x.take(items), buf[:0]
		for i := range items {
			buf = transport.AppendFrame(buf, items[i].payload, s.command.Framing)
			items[i].payload = nil
		}
		if len(items) > 0 {
			continue
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

// read brings the peers what the process says.
func (s *Shared) read(ctx context.Context, ch *child, broken chan<- breach) {
	r := transport.NewFrameReader(ch.stdout, s.command.Framing, s.command.MaxMessageBytes)
	rubbish := rubbish{log: ch.log}
	for {
		p, err := r.Next()
		if tooLarge, ok := errors.AsType[*transport.OversizeError](err); ok {
			s.oversize(ch, tooLarge)
			continue
		}
		if err != nil {
			lost := breach{text: fmt.Sprintf("application %q closed its stdout", s.command.name())}
			if _, ok := errors.AsType[*transport.FramingError](err); ok {
				lost = breach{fmt.Sprintf("application %q: %v", s.command.name(), err), true} // it cannot be understood any more
			}
			broken <- lost
			_, _ = io.Copy(io.Discard, ch.stdout)
			return
		}
		m, err := transport.Peek(p)
		if err != nil {
			rubbish.note(len(p))
			continue
		}
		if cause := s.x.fromApplication(p, m); cause != "" {
			cause = fmt.Sprintf("application %q %s", s.command.name(), cause)
			s.note(true, cause)
			s.log.Warn(cause)
		}
		s.holdUp(ctx, ch)
	}
}

// holdUp makes the process wait for a lossless peer that does not read, if that
// is the only one: with others there, nobody waits for a stranger.
func (s *Shared) holdUp(ctx context.Context, ch *child) {
	for {
		room, crowd := s.x.behind()
		if room == nil {
			return
		}
		select {
		case <-room:
		case <-crowd:
		case <-ch.exited:
			return
		case <-ctx.Done():
			return
		}
	}
}

// oversize answers the asker in place of an answer over the limit.
func (s *Shared) oversize(ch *child, e *transport.OversizeError) {
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
	s.x.fromApplication(answer, m)
}
