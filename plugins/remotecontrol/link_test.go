package remotecontrol

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A hijacked is the response writer of an upgrade over a pipe.
type hijacked struct {
	conn   net.Conn
	rw     *bufio.ReadWriter
	header http.Header
}

func (h *hijacked) Header() http.Header         { return h.header }
func (h *hijacked) Write(p []byte) (int, error) { return h.conn.Write(p) }
func (h *hijacked) WriteHeader(int)             {}
func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, h.rw, nil
}

// pipe returns both ends of a WebSocket in memory, which works on fake time.
func pipe(t *testing.T) (ours, theirs *websocket.Conn) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	upgraded := make(chan *websocket.Conn, 1)
	go func() {
		defer close(upgraded)
		rw := bufio.NewReadWriter(bufio.NewReader(b), bufio.NewWriter(b))
		r, err := http.ReadRequest(rw.Reader)
		if err != nil {
			return
		}
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(&hijacked{b, rw, http.Header{}}, r, nil)
		if err != nil {
			return
		}
		upgraded <- ws
	}()
	dialer := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return a, nil }}
	ours, _, err := dialer.DialContext(t.Context(), "ws://relay.test/", nil)
	if err != nil {
		t.Fatalf("upgrading over a pipe: %v", err)
	}
	if theirs = <-upgraded; theirs == nil {
		t.Fatal("the relay's end of the pipe did not upgrade")
	}
	return ours, theirs
}

// bare are clients without a host, for links on which nothing is opened.
func bare() *clients {
	return newClients(new(pluginsdk.Host), profile3, "relay.test:443", defaultMaxClients, hclog.NewNullLogger())
}

// serveBare serves a link in a bubble; the channel gets its result.
func serveBare(t *testing.T, c *clients) (theirs *websocket.Conn, served chan error, cancel context.CancelCauseFunc) {
	t.Helper()
	ours, theirs := pipe(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	served = make(chan error, 1)
	go func() { served <- c.serve(ctx, ours) }()
	return theirs, served, cancel
}

// TestPings is run_server_writer_inner_sends_periodic_ping_frames.
func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bare()
		theirs, served, cancel := serveBare(t, c)
		start := time.Now()
		var at []time.Duration
		theirs.SetPingHandler(func(string) error {
			at = append(at, time.Since(start))
			if len(at) == 20 {
				return errors.New("enough")
			}
			return theirs.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second))
		})
		if _, _, err := theirs.ReadMessage(); err == nil || err.Error() != "enough" {
			t.Errorf("the relay read %v", err)
		}
		for i, d := range at {
			if want := time.Duration(i+1) * pingInterval; d != want {
				t.Errorf("ping %d came after %v, want %v", i, d, want)
			}
		}
		cancel(pluginsdk.ErrStopping)
		_ = theirs.Close()
		<-served
		c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
	})
}

// TestPongTimeout is run_websocket_reader_inner_times_out_without_pong_frames:
// other traffic does not count.
func TestPongTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bare()
		theirs, served, _ := serveBare(t, c)
		theirs.SetPingHandler(func(string) error { return nil })
		read := make(chan struct{})
		go func() {
			defer close(read)
			for {
				if _, _, err := theirs.ReadMessage(); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		if err := theirs.WriteControl(websocket.PongMessage, nil, time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		for range 11 {
			time.Sleep(5 * time.Second)
			if err := theirs.WriteMessage(websocket.TextMessage, []byte(`{"type":"ping","client_id":"c1","stream_id":"s1"}`)); err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			if err := theirs.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		err := <-served
		if !errors.Is(err, errPongTimeout) || err.Error() != "remote control websocket reader disconnected, err: remote control websocket pong timeout" {
			t.Errorf("serve returned %v", err)
		}
		if got := time.Since(start); got != pongTimeout {
			t.Errorf("it took %v, want %v", got, pongTimeout)
		}
		_ = theirs.Close()
		<-read
		c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
	})
}

// TestPingOfTheRelayIsAnswered with its own bytes.
func TestPingOfTheRelayIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bare()
		theirs, served, cancel := serveBare(t, c)
		theirs.SetPongHandler(func(data string) error { return errors.New("pong " + data) })
		go func() { _ = theirs.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Second)) }()
		if _, _, err := theirs.ReadMessage(); err == nil || err.Error() != "pong hello" {
			t.Errorf("the relay read %v", err)
		}
		cancel(pluginsdk.ErrStopping)
		_ = theirs.Close()
		<-served
		c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
	})
}

// TestGoodbyeIsBounded: a relay that neither reads nor answers costs 250 ms.
func TestGoodbyeIsBounded(t *testing.T) {
	for _, reads := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := bare()
			theirs, served, cancel := serveBare(t, c)
			read := make(chan struct{})
			go func() {
				defer close(read)
				if reads {
					theirs.SetCloseHandler(func(int, string) error { return nil })
					_, _, _ = theirs.ReadMessage()
				}
			}()
			synctest.Wait()
			start := time.Now()
			cancel(errDisabled)
			if err := <-served; !errors.Is(err, errDisabled) {
				t.Errorf("serve returned %v", err)
			}
			if got := time.Since(start); got != closeWait {
				t.Errorf("relay reads %v: it took %v, want %v", reads, got, closeWait)
			}
			_ = theirs.Close()
			<-read
			c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
		})
	}
}

// TestSweepTimes: at once when a link begins, and then every 30 s. A stream
// without a virtual client is forgotten like one that is idle.
func TestSweepTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := bare()
		c.receive([]byte(`{"type":"ping","client_id":"c1","stream_id":"s1"}`))
		time.Sleep(idleTimeout)
		c.receive([]byte(`{"type":"ping","client_id":"c1","stream_id":"s2"}`))
		theirs, served, cancel := serveBare(t, c)
		_, p, err := theirs.ReadMessage()
		if want := `{"type":"pong","status":"unknown","client_id":"c1","stream_id":"s2","seq_id":1}`; err != nil || string(p) != want {
			t.Errorf("the relay got %s, %v; want %s", p, err, want)
		}
		go func() {
			for {
				if _, _, err := theirs.ReadMessage(); err != nil {
					return
				}
			}
		}()
		time.Sleep(idleTimeout + time.Millisecond)
		synctest.Wait()
		if got := c.streams["c1"]["s2"].out.envelopes; got != 0 {
			t.Errorf("%d envelopes are retained for a stream that is idle", got)
		}
		cancel(pluginsdk.ErrStopping)
		<-served
		c.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway})
	})
}

func TestForgottenStreamsAreBounded(t *testing.T) {
	c := bare()
	for range maxForgotten + 100 {
		c.receive([]byte(`{"type":"ping","client_id":"c1"}`))
	}
	if got := len(c.streams["c1"]); got != maxForgotten || c.idle.Len() != maxForgotten {
		t.Errorf("%d streams are remembered, want %d", got, maxForgotten)
	}
}

// TestRetainedBytesAreBounded: what is over waits its turn, and small messages
// do not wait for large ones.
func TestRetainedBytesAreBounded(t *testing.T) {
	c := bare()
	c.small.max, c.large.max = 1<<20, 1<<20
	const share = 1<<20/poolShare + reservedBytes
	c.mu.Lock()
	defer c.mu.Unlock()
	s := make([]*stream, 10)
	for i := range s {
		s[i] = c.streamLocked(streamKey{"c1", string(rune('a' + i))})
	}
	hold := func(s *stream, bytes int) bool {
		if !c.chargeLocked(s, bytes) {
			return false
		}
		s.out.bytes = bytes
		return true
	}
	if !hold(s[0], 8<<20) {
		t.Error("a message over the bound may not be there alone")
	}
	if hold(s[1], 8<<20) || hold(s[2], share+1) {
		t.Error("there is room for two that hold more than their share")
	}
	for i := range poolShare {
		if !hold(s[3+i], share) {
			t.Errorf("stream %d waits for the large messages of others", 3+i)
		}
	}
	if hold(s[7], 100<<10) || !hold(s[8], reservedBytes) {
		t.Error("there is room for other than the reserved bytes")
	}
	if hold(s[9], 70<<10) {
		t.Error("somebody went ahead of one who waits")
	}
	if c.small.retained != 1<<20 || c.large.retained != 8<<20-reservedBytes {
		t.Errorf("%d and %d bytes are charged", c.small.retained, c.large.retained)
	}
	s[3].out.bytes = 0
	c.rechargeLocked(s[3])
	if len(c.small.queue) != 0 || !s[7].granted || !s[9].granted || s[1].granted {
		t.Errorf("%d streams wait", len(c.small.queue))
	}
	if !hold(s[7], 100<<10) || !hold(s[9], 70<<10) {
		t.Error("those who waited may not go on")
	}
	s[0].out.bytes = 0
	c.rechargeLocked(s[0])
	if c.large.retained != 0 || len(c.large.queue) != 0 || !s[1].granted || !s[2].granted {
		t.Errorf("%d bytes of large ones are charged, %d streams wait", c.large.retained, len(c.large.queue))
	}
}
