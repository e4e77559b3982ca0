package application

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// A terminal is a lossless connection with room for some messages until its
// reader comes.
type terminal struct {
	ledger
	mu     sync.Mutex // guards what follows, and the ledger
	room   int
	more   chan struct{} // closed when there is more room, or closed
	closed bool
	reason *transport.CloseReason // with which this side closed it
	early  bool                   // it was sent something afterwards
}

func newTerminal(room int) *terminal { return &terminal{room: room, more: make(chan struct{})} }

func (c *terminal) Send(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return transport.ErrConnClosed
	}
	if len(c.sent) >= c.room {
		return transport.ErrOverloaded
	}
	c.early = c.early || c.reason != nil
	return c.ledger.Send(p)
}

func (c *terminal) SendWait(ctx context.Context, p []byte) error {
	for {
		if err := c.Send(p); err != transport.ErrOverloaded {
			return err
		}
		c.mu.Lock()
		more := c.more
		c.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *terminal) Close(r transport.CloseReason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = &r
}

func (c *terminal) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.more)
	c.more = make(chan struct{})
}

// reads makes room for everything.
func (c *terminal) reads() { c.change(func() { c.room = 1 << 30 }) }

func (c *terminal) leaves() { c.change(func() { c.closed = true }) }

func (c *terminal) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sent)
}

func news(i int) string {
	return fmt.Sprintf(`{"method":"news","params":[%d,"%05000d"]}`, i, 0)
}

// initialized makes a peer on c that is initialized; c has got one message.
func (b *bench) initialized(name string, c Conn) {
	b.joins(name, c)
	b.says(name, `{"id":"init","method":"initialize","params":{}}`)
}

// TestALosslessPeerThatDoesNotReadStopsNobody: the other one gets everything,
// and what waits for the first is bounded; answers are not left out.
func TestALosslessPeerThatDoesNotReadStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "b")
		b.initialize(`{}`, "b")
		c := newTerminal(1)
		b.initialized("a", c)
		b.want("the terminal's request", b.says("a", `{"id":"mine","method":"m"}`), `{"id":2,"method":"m"}`)
		const total = 2000
		for i := range total {
			b.answers(news(i))
			if room, _ := b.x.behind(); room != nil {
				t.Fatal("the application waits for a stranger")
			}
		}
		if n := len(b.conn["b"].sent); n != total {
			t.Errorf("the other peer got %d of %d", n, total)
		}
		b.conn["b"].drain()
		out := &b.peer["a"].out
		if kept := backlogBytes/5000 + 2; len(out.queue) > kept || b.x.leftOut.Load() != int64(total-len(out.queue)) {
			t.Errorf("%d messages wait for the terminal and %d were left out, want %d at most to wait", len(out.queue), b.x.leftOut.Load(), kept)
		}
		b.answers(`{"id":"q","method":"ask"}`)
		b.want("a request of the application", b.conn["b"].drain(), `{"id":3,"method":"ask"}`)
		b.answers(`{"id":2,"result":"yours"}`)
		b.says("a", `{"id":"bad","method":"m","params":{]}`)
		before := len(out.queue)
		c.reads()
		synctest.Wait()
		got := c.got()
		if len(got) != before+1 {
			t.Errorf("the terminal got %d messages once it read, want %d", len(got), before+1)
		}
		want := []string{`{"id":"mine","result":"yours"}`, `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,`}
		for i, w := range want {
			if g := got[len(got)-2+i]; !strings.HasPrefix(g, w) {
				t.Errorf("its answer is %.100s, want %s", g, w)
			}
		}
		b.answers(news(0))
		if g := c.got(); g[len(g)-1] != news(0) {
			t.Errorf("afterwards it got %.80s", g[len(g)-1])
		}
	})
}

// TestTheOnlyPeerHoldsTheApplicationUp until it reads, leaves or has company.
func TestTheOnlyPeerHoldsTheApplicationUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(b *bench, c *terminal)
	}{
		{"reads", func(_ *bench, c *terminal) { c.reads() }},
		{"leaves", func(_ *bench, c *terminal) { c.leaves() }},
		{"has company", func(b *bench, _ *terminal) { b.joins("b", &ledger{}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				c := newTerminal(0)
				b.joins("a", c)
				got := b.says("a", `{"id":"init","method":"initialize"}`)
				b.want("initialize", got, `{"id":1,"method":"initialize"}`)
				b.answers(`{"id":1,"result":{}}`)
				room, crowd := b.x.behind()
				for i := 0; room == nil; i++ {
					b.answers(news(i))
					room, crowd = b.x.behind()
				}
				if n := b.x.leftOut.Load(); n != 0 {
					t.Errorf("%d messages were left out", n)
				}
				synctest.Wait()
				select {
				case <-room:
					t.Fatal("there is room before anything has changed")
				case <-crowd:
					t.Fatal("there is company before anything has changed")
				default:
				}
				tt.end(b, c)
				select {
				case <-room:
				case <-crowd:
				}
				if room, _ := b.x.behind(); room != nil {
					t.Error("the application still waits")
				}
			})
		})
	}
}

// TestTheEndOfAChildAnswersEverything on a lossless connection that is full,
// and closes it afterwards.
func TestTheEndAnswersEverything(t *testing.T) {
	const n = 100
	check := func(t *testing.T, c *terminal) {
		synctest.Wait()
		if c.reason != nil {
			t.Error("the connection was closed before it was read")
		}
		c.reads()
		synctest.Wait()
		got := c.got()
		seen := map[string]bool{}
		for _, g := range got {
			seen[g[:strings.Index(g, `,"error"`)]] = true
		}
		if len(got) != n || len(seen) != n || c.reason == nil || c.early {
			t.Errorf("%d answers to %d of %d requests, closed %v, late ones %v", len(got), len(seen), n, c.reason, c.early)
		}
	}
	t.Run("per connection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			app := newPerConnection("test", "test", hclog.NewNullLogger())
			app.frame = func(dst, p []byte) []byte { return append(dst, p...) }
			fail := make(chan struct{})
			app.connect = func(context.Context) (upstream, error) {
				<-fail
				return nil, fmt.Errorf("it cannot be reached")
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- app.Run(ctx) }()
			c := newTerminal(2)
			s := app.Open(c)
			for i := range n {
				deliverTo(t, s, fmt.Sprintf(`{"id":%d,"method":"m"}`, i))
			}
			close(fail)
			check(t, c)
			s.Closed(transport.CloseReason{})
			cancel()
			<-done
		})
	})
	t.Run("handler", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			end := make(chan struct{})
			app := NewHandlerApp(HandlerFunc(func(context.Context, *HandlerConn) error {
				<-end
				return nil
			}), hclog.NewNullLogger())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- app.Run(ctx) }()
			c := newTerminal(2)
			s := app.Open(c)
			for i := range n {
				deliverTo(t, s, fmt.Sprintf(`{"id":%d,"method":"m"}`, i))
			}
			close(end)
			check(t, c)
			s.Closed(transport.CloseReason{})
			cancel()
			<-done
		})
	})
	t.Run("shared", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			c := newTerminal(2)
			b.joins("a", c)
			for i := range n {
				b.says("a", fmt.Sprintf(`{"id":%d,"method":"m"}`, i))
			}
			b.x.died("it exited", "")
			c.reads()
			synctest.Wait()
			if got := c.got(); len(got) != n {
				t.Errorf("%d answers to %d requests", len(got), n)
			}
		})
	})
}

func deliverTo(t *testing.T, s Session, message string) {
	t.Helper()
	m, err := transport.Peek([]byte(message))
	if err != nil {
		t.Fatal(err)
	}
	s.Deliver([]byte(message), m)
}

// TestAnswersAreBounded: what is larger than fits becomes a short error.
func TestAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "b")
		c := newTerminal(0)
		b.joins("a", c)
		large := strings.Repeat("x", 20<<20)
		const n = 5
		for i := range n {
			b.says("a", fmt.Sprintf(`{"id":%d,"method":"m"}`, i))
			b.answers(fmt.Sprintf(`{"id":%d,"result":"%s"}`, i+1, large))
		}
		if out := &b.peer["a"].out; out.bytes > backlogAnswerBytes+(1<<10) {
			t.Errorf("%d bytes wait, limit %d", out.bytes, backlogAnswerBytes)
		}
		c.reads()
		synctest.Wait()
		got := c.got()
		if len(got) != n || !strings.HasPrefix(got[n-1], `{"jsonrpc":"2.0","id":4,"error":{"code":-32603,"message":"the answer was dropped: `) {
			t.Errorf("%d answers, the last %.120s", len(got), got[len(got)-1])
		}
	})
}

// TestOpenAfterTheEnd: a connection that comes while the application ends, or
// after, is closed and starts nothing.
func TestOpenAfterTheEnd(t *testing.T) {
	exec := newPerConnection("test", "test", hclog.NewNullLogger())
	handler := NewHandlerApp(HandlerFunc(func(ctx context.Context, _ *HandlerConn) error { <-ctx.Done(); return nil }), hclog.NewNullLogger())
	for name, app := range map[string]App{"per connection": exec, "handler": handler} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- app.Run(ctx) }()
			cancel()
			<-done
			c := newTerminal(10)
			s := app.Open(c)
			if c.reason == nil || c.reason.Code != transport.CloseGoingAway {
				t.Errorf("closed with %v, want going away", c.reason)
			}
			s.Closed(transport.CloseReason{})
		})
	}
}
