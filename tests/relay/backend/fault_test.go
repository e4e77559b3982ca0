package backend_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/transporthost/transporthost/tests/relay/backend"
	"github.com/transporthost/transporthost/tests/relay/fakehost"
)

func TestAnswersOnDemand(t *testing.T) {
	tests := []struct {
		name       string
		answer     backend.Answer
		wantStatus int
		wantHeader [2]string
		wantBody   string
	}{
		{"401", backend.Reject(401, "Unauthorized"), 401, [2]string{"X-Request-Id", "req-fault"}, `{"detail":"Unauthorized"}`},
		{"policy", backend.MultiFactorRequired(), 403, [2]string{"Content-Type", "application/json"}, `{"detail":"Multi-factor authentication required"}`},
		{"404", backend.Reject(404, "Remote app server not found"), 404, [2]string{}, `{"detail":"Remote app server not found"}`},
		{"409", backend.Reject(409, "conflict"), 409, [2]string{}, `{"detail":"conflict"}`},
		{"429", backend.Overloaded(429, 7*time.Second), 429, [2]string{"Retry-After", "7"}, `{"detail":"slow down"}`},
		{"503", backend.Overloaded(503, time.Minute), 503, [2]string{"Retry-After", "60"}, `{"detail":"slow down"}`},
		{"page", backend.Cloudflare(), 403, [2]string{"Cf-Ray", "8f2a5c7d9e0b1234-FRA"}, `Cloudflare Ray ID`},
		{"own", backend.Answer{Status: 500, Header: http.Header{"x-oai-request-id": {"r"}}, Body: "oops", Delay: time.Millisecond}, 500, [2]string{"X-Oai-Request-Id", "r"}, "oops"},
		{"no JSON", backend.Answer{Status: 200, Body: "{"}, 200, [2]string{"Content-Type", "text/plain; charset=utf-8"}, "{"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{})
			b.enroll()
			ask := map[backend.Endpoint]func() (fakehost.Answer, error){
				backend.EndpointEnroll:  func() (fakehost.Answer, error) { return b.host.Post(b.ctx, b.url+backend.EnrollPath, "{}") },
				backend.EndpointRefresh: func() (fakehost.Answer, error) { return b.host.Post(b.ctx, b.url+backend.RefreshPath, "{}") },
				backend.EndpointToken:   func() (fakehost.Answer, error) { return b.host.Post(b.ctx, b.url+backend.TokenPath, "{}") },
				backend.EndpointUpgrade: func() (fakehost.Answer, error) {
					_, a, err := b.host.Dial(b.ctx)
					if errors.Is(err, websocket.ErrBadHandshake) {
						err = nil
					}
					return a, err
				},
			}
			for endpoint, do := range ask {
				b.AnswerNext(endpoint, tt.answer)
				before := b.CountRequests(endpoint)
				a, err := do()
				if err != nil || a.Status != tt.wantStatus || !strings.Contains(a.Body, tt.wantBody) {
					t.Errorf("%s: got status %d, body %q, %v, want %d, %q", endpoint, a.Status, a.Body, err, tt.wantStatus, tt.wantBody)
				}
				if name := tt.wantHeader[0]; name != "" && a.Header.Get(name) != tt.wantHeader[1] {
					t.Errorf("%s: %s is %q, want %q", endpoint, name, a.Header.Get(name), tt.wantHeader[1])
				}
				if got := b.CountRequests(endpoint) - before; got != 1 {
					t.Errorf("%s: %d requests were counted, want 1", endpoint, got)
				}
			}
			b.dial() // and that was all
			b.Verify(t)
		})
	}
}

func TestAnswersUntilHealed(t *testing.T) {
	b := newBench(t, backend.Options{})
	b.AnswerAlways(backend.EndpointEnroll, backend.Reject(503, "down"))
	b.AnswerNext(backend.EndpointEnroll, backend.Answer{Drop: true}, backend.Answer{Hang: true}, backend.Answer{Delay: time.Millisecond})
	if _, err := b.host.Enroll(b.ctx); err == nil {
		t.Error("a dropped request had an answer")
	}
	ctx, cancel := context.WithCancel(b.ctx)
	hung := make(chan error, 1)
	go func() {
		_, err := b.host.Enroll(ctx)
		hung <- err
	}()
	if _, err := b.AwaitRequest(b.ctx, func(r backend.Request) bool { return r.N == 2 }); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("a request that hangs ended with %v", err)
	}
	b.enroll() // the one that is only delayed
	for range 2 {
		if a, err := b.host.Enroll(b.ctx); err != nil || a.Status != 503 {
			t.Errorf("got status %d, %v, want 503", a.Status, err)
		}
	}
	b.Heal()
	b.enroll()
	b.Verify(t)
}

// TestCloseEndsWhatHangs does not wait for hosts.
func TestCloseEndsWhatHangs(t *testing.T) {
	b := newBench(t, backend.Options{})
	b.dial()
	b.AnswerNext(backend.EndpointEnroll, backend.Answer{Hang: true})
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		_, _ = b.host.Enroll(b.ctx) // whatever it says
	}()
	if _, err := b.AwaitRequest(b.ctx, func(r backend.Request) bool { return r.N == 3 }); err != nil {
		t.Fatal(err)
	}
	b.Close()
	<-hung
	if c := b.Connects()[0]; c.Ended.IsZero() {
		t.Error("the link outlived Close")
	}
	if a, err := b.host.Post(b.ctx, b.url+backend.EnrollPath, "{}"); err != nil || a.Status != http.StatusServiceUnavailable {
		t.Errorf("behind Close: status %d, %v, want 503", a.Status, err)
	}
	if _, err := b.AwaitConnect(b.ctx, 9); !errors.Is(err, backend.ErrClosed) {
		t.Errorf("a wait behind Close: got %v, want %v", err, backend.ErrClosed)
	}
}

func TestEndsOfLinks(t *testing.T) {
	tests := []struct {
		name      string
		end       func(*bench, *fakehost.Socket)
		wantHost  string // what the host's read says
		wantCause string
		wantCode  int
	}{
		{"drop", func(b *bench, _ *fakehost.Socket) { b.Drop() }, "", "dropped", 0},
		{"close frame", func(b *bench, _ *fakehost.Socket) { b.CloseLinks(1012, "restart") }, "close 1012", "closed by us with 1012", 0},
		{"by the host", func(_ *bench, s *fakehost.Socket) {
			_ = s.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1001, "bye"), time.Now().Add(time.Second))
		}, "close 1001", "closed by the host with 1001", 1001},
		{"host gone", func(_ *bench, s *fakehost.Socket) { _ = s.Close() }, "closed", "EOF", 0},
		{"after three frames", func(b *bench, s *fakehost.Socket) {
			b.DropAfter(3)
			for want := 3; want > 0; want-- {
				if got := b.DropsLeft(); got != 1 {
					b.t.Errorf("%d drops are left with %d frames to go, want 1", got, want)
				}
				b.must(s.Write("{}"))
				_, err := b.AwaitConnectWhere(b.ctx, 1, func(c backend.Connect) bool { return c.Received == 4-want })
				b.must(err)
			}
		}, "", "dropped by a fault", 0},
		{"at random", func(b *bench, s *fakehost.Socket) {
			b.DropRandomly(1, 1, 1)
			for b.DropsLeft() > 0 {
				_ = s.Write("{}")
			}
		}, "", "dropped by a fault", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{})
			sock := b.dial()
			tt.end(b, sock)
			_, err := sock.Next()
			if err == nil || !strings.Contains(err.Error(), tt.wantHost) {
				t.Errorf("the host's read says %v, want %q", err, tt.wantHost)
			}
			c, err := b.AwaitEnd(b.ctx, 1)
			if err != nil || !strings.Contains(c.Cause, tt.wantCause) || c.CloseCode != tt.wantCode {
				t.Errorf("the connect ended with %q, code %d, %v, want %q, %d", c.Cause, c.CloseCode, err, tt.wantCause, tt.wantCode)
			}
		})
	}
}

func TestPings(t *testing.T) {
	b := newBench(t, backend.Options{})
	sock := b.dial()
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	ping := func(n int) {
		t.Helper()
		b.must(sock.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)))
		_, err := b.AwaitConnectWhere(b.ctx, 1, func(c backend.Connect) bool { return c.Pings == n })
		b.must(err)
		b.send(c, `{"method":"x"}`) // behind the pong, if there is one
		b.next(sock, "client_message")
	}
	ping(1)
	if sock.Pongs != 1 {
		t.Errorf("got %d pongs, want 1", sock.Pongs)
	}
	b.StopPongs()
	ping(2)
	if sock.Pongs != 1 {
		t.Errorf("got a pong although they are stopped")
	}
	b.Heal()
	ping(3)
	if sock.Pongs != 2 {
		t.Errorf("got %d pongs after healing, want 2", sock.Pongs)
	}
}

func TestSlowReads(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	b.StopReading(time.Hour)
	sock := b.dial()
	b.send(c, initialize)
	b.next(sock, "client_message") // writing goes on
	const n = 3
	for i := 1; i <= n; i++ {
		b.must(sock.Message("c1", "s1", uint64(i), fmt.Sprintf(`{"method":"m%d"}`, i)))
	}
	if b.receive(c).Method != "m1" { // the read that was under way
		t.Error("the first message is another one")
	}
	short, cancel := context.WithTimeout(b.ctx, 20*time.Millisecond)
	defer cancel()
	if m, err := c.Receive(short); err == nil {
		t.Errorf("got %s although nothing is read", m.Payload)
	}
	b.Heal()
	for i := 2; i <= n; i++ {
		if m := b.receive(c); m.Method != fmt.Sprintf("m%d", i) {
			t.Errorf("got %s, want m%d", m.Payload, i)
		}
	}
	b.Verify(t)
}

func TestAcks(t *testing.T) {
	const size = 250 << 10 // three segments
	tests := []struct {
		name   string
		policy backend.AckPolicy
		stop   bool     // a fault withholds the acks until the end
		want   []string // "seq" or "seq.segment", of the acks that the host gets
	}{
		{"segments", backend.AckSegments, false, []string{"1", "2.0", "2.1", "2"}},
		{"messages", backend.AckMessages, false, []string{"1", "1", "1", "2"}},
		{"nothing", backend.AckNothing, false, nil},
		{"withheld", backend.AckSegments, true, []string{"2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, backend.Options{})
			sock := b.dial()
			c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1", Acks: tt.policy})
			b.send(c, initialize)
			b.next(sock, "client_message")
			if tt.stop {
				b.StopAcks()
			}
			var got []string
			ack := func() {
				e := b.next(sock, "ack")
				if e.Segment != nil {
					got = append(got, fmt.Sprintf("%d.%d", *e.Seq, *e.Segment))
				} else {
					got = append(got, fmt.Sprint(*e.Seq))
				}
			}
			frames := append([][]byte{fakehost.Message("c1", "s1", 1, `{"method":"m"}`)}, fakehost.Cut("c1", "s1", 2, fakehost.Padded(size))...)
			for _, frame := range frames {
				b.must(sock.WriteMessage(1, frame))
				if len(tt.want) == len(frames) {
					ack()
				}
			}
			b.receive(c)
			b.receive(c)
			if tt.stop {
				b.Heal()
				ack()
			}
			b.send(c, `{"method":"end"}`)
			b.next(sock, "client_message") // no further ack
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("the host got the acks %v, want %v", got, tt.want)
			}
			b.Verify(t)
		})
	}
}

func TestAcksByHand(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1", Acks: backend.AckNothing})
	if err := c.Ack(1); !errors.Is(err, backend.ErrNoLink) {
		t.Errorf("without a link: got %v, want %v", err, backend.ErrNoLink)
	}
	sock := b.dial()
	b.must(c.Ack(3))
	b.must(c.AckSegment(4, 2))
	b.must(c.AckAllStreams(5))
	for _, want := range []string{`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":3}`,
		`{"type":"ack","client_id":"c1","stream_id":"s1","seq_id":4,"segment_id":2}`, `{"type":"ack","client_id":"c1","seq_id":5}`} {
		if e := b.next(sock, "ack"); string(e.Text) != want {
			t.Errorf("got %s, want %s", e.Text, want)
		}
	}
}

func TestDuplicatesAndDisorder(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	b.Duplicate(1)
	b.Swap(1)
	for i := range 4 {
		b.send(c, fmt.Sprintf(`{"method":"m%d"}`, i))
	}
	sock := b.dial()
	var got []string
	for range 5 {
		e := b.next(sock, "client_message")
		got = append(got, fmt.Sprintf("%s/%d", e.Method(), *e.Seq))
	}
	if want := "[m1/1 m1/1 m0/0 m2/2 m3/3]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestGarbage(t *testing.T) {
	b := newBench(t, backend.Options{})
	c := b.open(backend.ClientOptions{ID: "c1", StreamID: "s1"})
	if err := c.Inject(backend.GarbageBinary); !errors.Is(err, backend.ErrNoLink) {
		t.Errorf("without a link: got %v, want %v", err, backend.ErrNoLink)
	}
	sock := b.dial()
	seen := map[string]bool{}
	for _, g := range backend.AllGarbage() {
		b.must(c.Inject(g))
		kind, text, err := sock.ReadMessage()
		b.must(err)
		if (kind == websocket.BinaryMessage) != (g == backend.GarbageBinary) {
			t.Errorf("%s: the frame has kind %d", g, kind)
		}
		if seen[string(text)] {
			t.Errorf("%s is the same as another kind", g)
		}
		seen[string(text)] = true
		if isJSON := json.Valid(text); isJSON == (g == backend.GarbageBinary || g == backend.GarbageNoJSON) {
			t.Errorf("%s: valid JSON is %v: %.100s", g, isJSON, text)
		}
		if large := len(text) > 150<<10; large != (g == backend.GarbageOversize) {
			t.Errorf("%s has %d bytes", g, len(text))
		}
	}
	if err := c.Inject("nice"); err == nil {
		t.Error("garbage of no kind was sent")
	}
	b.must(c.InjectText("as it is"))
	if _, text, err := sock.ReadMessage(); err != nil || string(text) != "as it is" {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestNothingIsLostOrDoubled drops the link at random under a host that keeps
// the protocol, and counts.
func TestNothingIsLostOrDoubled(t *testing.T) {
	const clients, calls, drops = 4, 250, 25
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for _, profile := range []backend.Profile{backend.Profile2, backend.Profile3} {
		t.Run(fmt.Sprint("profile ", profile), func(t *testing.T) {
			b := newBench(t, backend.Options{Profile: profile})
			b.echo()
			b.DropRandomly(seed, clients*calls*4/drops/2, drops)
			var all errgroup.Group
			for i := range clients {
				c := b.open(backend.ClientOptions{ID: fmt.Sprint("c", i), StreamID: "s", SegmentBytes: 70})
				all.Go(func() error { return exchange(b.ctx, c, calls) })
			}
			b.must(all.Wait())
			if left := b.DropsLeft(); left > drops/2 {
				t.Errorf("%d of %d drops did not happen", left, drops)
			}
			b.Close()
			if n := len(b.Connects()); n < drops/2 {
				t.Errorf("%d connects, want at least %d", n, drops/2)
			}
			b.Verify(t)
		})
	}
}

// exchange sends requests, some at a time, and expects each answer once and in
// order.
func exchange(ctx context.Context, c *backend.Client, calls int) error {
	if err := c.Send([]byte(initialize)); err != nil {
		return err
	}
	const window = 16
	sent, received := 0, 0
	for received < calls+1 {
		for ; sent < calls && sent-received < window; sent++ {
			if err := c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"echo","params":"%s"}`, 100+sent, strings.Repeat("p", sent%60))); err != nil {
				return err
			}
		}
		m, err := c.Receive(ctx)
		if err != nil {
			return fmt.Errorf("%s after %d answers: %w", c.ID(), received, err)
		}
		want := fmt.Sprint(99 + received)
		if received == 0 {
			want = "1"
		}
		if string(m.ID) != want {
			return fmt.Errorf("%s: got the answer to %s, want %s", c.ID(), m.ID, want)
		}
		received++
	}
	return nil
}
