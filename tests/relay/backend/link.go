package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	closeGoingAway = websocket.CloseGoingAway
	// writeTimeout is how long a host may not read before it counts as dead.
	writeTimeout = 2 * time.Minute
	// hostSilence is how long a host may send nothing: it pings every 10 s.
	hostSilence = 2 * time.Minute
	// closeTimeout bounds the writing of a close frame or a pong.
	closeTimeout = time.Second
	// maxControl bounds the frames that go before all messages.
	maxControl = 4096
	// maxFrame bounds what a host makes us keep of one frame.
	maxFrame = maxMessage + 1<<20
	// unsentBytes is what the system may keep of what was written. What one client
	// has there is in front of what the others get.
	unsentBytes = 256 << 10
	// wireTime is how long a byte of a segment is on the wire: 1 Gbit/s. The
	// sockets of one machine take more than any network brings, from the very
	// processors that the host is to be tested with.
	wireTime = 8 * time.Nanosecond
	// recordedText is how much of a frame is remembered.
	recordedText = 4 << 10
)

// A Connect is one WebSocket of a host, past or present.
type Connect struct {
	N         int // from 1
	At        time.Time
	ServerID  string
	AccountID string
	Cursor    string      // x-codex-subscribe-cursor, "" if there was none
	Header    http.Header // without tokens, unless Options.RecordSecrets
	Bearer    string      // as in [Request]
	Lost      bool        // it lacks messages that are no longer kept
	Restarts  int         // streams that began anew: the host is another process
	Received  int         // envelopes
	Sent      int         // envelopes
	Pings     int
	Ended     time.Time // zero while it lives
	CloseCode int       // of the host's close frame, 0 without one
	Cause     string    // of its end
}

// A link is the backend's half of one WebSocket.
type link struct {
	b       *Backend
	sock    *websocket.Conn
	server  string
	connect *Connect      // guarded by Backend.mu
	frame   bytes.Buffer  // of the reader
	wake    chan struct{} // holds one wish to look for work
	done    chan struct{} // closed once, by end
	ending  sync.Once

	// Guarded by Backend.mu.
	control  []controlFrame
	acks     []dueAck // one per stream, the highest
	again    [][]byte // duplicates, by a fault
	resend   []*delivery
	sticky   *delivery // must be complete before anything else of the ledger
	turn     int       // client whose turn it is
	free     time.Time // when the wire has room for the next segment; what is whole does not wait
	held     bool      // a segment waits for that; of the writer
	sentUpTo uint64    // position that a cursor of this link covers
	last     map[streamKey]frontier
}

type controlFrame struct {
	kind int // of the WebSocket message
	text []byte
}

type dueAck struct {
	key streamKey
	to  position
}

// serve runs the link until it ends. The reader is the caller.
func (l *link) serve() {
	var writer sync.WaitGroup
	writer.Go(l.write)
	code, cause := l.read()
	l.end(cause)
	writer.Wait()

	b := l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links = slices.DeleteFunc(b.links, func(other *link) bool { return other == l })
	l.connect.Ended, l.connect.CloseCode = time.Now(), code
	b.log.Info("disconnected", "link", l.connect.N, "cause", l.connect.Cause, "received", l.connect.Received, "sent", l.connect.Sent)
	b.notify()
}

// end closes the socket. The first cause is the one that is remembered.
func (l *link) end(cause string) {
	l.ending.Do(func() {
		l.b.mu.Lock()
		l.connect.Cause = cause
		l.b.mu.Unlock()
		close(l.done)
		_ = l.sock.Close()
	})
}

// drop ends the TCP connection without a word.
func (l *link) drop(cause string) {
	if tcp, ok := l.sock.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // a reset: what is under way is lost, as it is on a real network
	}
	l.end(cause)
}

// close ends the link with a close frame.
func (l *link) close(code int, reason string) {
	_ = l.sock.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(closeTimeout))
	l.end(fmt.Sprintf("closed by us with %d", code))
}

// read takes what the host sends. It returns the code of the host's close
// frame, if there was one.
func (l *link) read() (code int, cause string) {
	if tcp, ok := l.sock.NetConn().(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(unsentBytes) // as it is, others wait a little longer
	}
	l.sock.SetReadLimit(maxFrame)
	l.sock.SetPingHandler(l.pinged)
	for {
		if err := l.sock.SetReadDeadline(time.Now().Add(hostSilence)); err != nil {
			return 0, err.Error()
		}
		kind, text, err := l.receive()
		if closing, ok := errors.AsType[*websocket.CloseError](err); ok && closing.Code != websocket.CloseAbnormalClosure {
			return closing.Code, fmt.Sprintf("closed by the host with %d", closing.Code)
		}
		if err != nil {
			return 0, err.Error()
		}
		if l.b.receive(l, kind, text) {
			l.drop("dropped by a fault")
			return 0, "dropped by a fault"
		}
		if !l.pause() {
			return 0, "ended while nothing was read"
		}
	}
}

// receive reads a frame. What it holds is valid until the next one if it is a
// segment: they are many and large.
func (l *link) receive() (kind int, text []byte, err error) {
	kind, r, err := l.sock.NextReader()
	if err != nil {
		return kind, nil, err
	}
	l.frame.Reset()
	if _, err := l.frame.ReadFrom(r); err != nil {
		return kind, nil, err
	}
	if text = l.frame.Bytes(); len(text) > maxEnvelope {
		l.frame = bytes.Buffer{}
	} else if len(text) <= recordedText || !bytes.HasPrefix(text, []byte(chunkHead)) {
		text = bytes.Clone(text)
	}
	return kind, text, nil
}

// pause waits while a fault forbids reading.
func (l *link) pause() bool {
	for {
		l.b.mu.Lock()
		left := time.Until(l.b.faults.pauseTill)
		if left <= 0 {
			l.b.mu.Unlock()
			return true
		}
		changed := l.b.changed.wait()
		l.b.mu.Unlock()
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-changed:
		case <-l.done:
		}
		timer.Stop()
		select {
		case <-l.done:
			return false
		default:
		}
	}
}

func (l *link) pinged(data string) error {
	b := l.b
	b.mu.Lock()
	l.connect.Pings++
	silent := b.faults.noPongs
	b.notify()
	b.mu.Unlock()
	if silent {
		return nil
	}
	_ = l.sock.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(closeTimeout)) // a dead socket shows elsewhere
	return l.sock.SetReadDeadline(time.Now().Add(hostSilence))
}

// write sends what is due until the link ends. It is the only one that sends
// messages.
func (l *link) write() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		frame, drop, ok := l.b.nextFrame(l)
		if !ok {
			var free <-chan time.Time
			if l.held {
				timer.Reset(time.Until(l.free))
				free = timer.C
			}
			select {
			case <-l.wake:
			case <-free:
			case <-l.done:
				return
			}
			continue
		}
		if drop {
			l.drop("dropped by a fault")
			return
		}
		err := l.sock.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			err = l.sock.WriteMessage(frame.kind, frame.text)
		}
		if err != nil {
			l.end(err.Error())
			return
		}
	}
}

// stir makes the writer look for work.
func (l *link) stir() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// serves reports whether the link carries a client. b.mu is held.
func (l *link) serves(c *Client) bool { return l.b.carrier(c) == l }

// carrier is the link of a client, nil if there is none. b.mu is held.
func (b *Backend) carrier(c *Client) *link {
	for _, l := range slices.Backward(b.links) {
		if c.server == "" || c.server == l.server {
			return l
		}
	}
	return nil
}

// nextFrame takes what is to be sent next: acknowledgements and pings, then
// what the host lacks, then one frame of each client in turn, so that nobody
// waits for another one's large message.
func (b *Backend) nextFrame(l *link) (frame controlFrame, drop, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	frame, ok = b.pick(l)
	if ok {
		l.connect.Sent++
		drop = b.faults.dropDue()
	}
	return frame, drop, ok
}

func (b *Backend) pick(l *link) (controlFrame, bool) {
	text := func(t []byte) (controlFrame, bool) { return controlFrame{websocket.TextMessage, t}, true }
	switch {
	case len(l.control) > 0:
		frame := l.control[0]
		l.control = l.control[1:]
		return frame, true
	case len(l.acks) > 0:
		due := l.acks[0]
		l.acks = l.acks[1:]
		return text(b.ack(l, due))
	case len(l.again) > 0:
		t := l.again[0]
		l.again = l.again[1:]
		return text(t)
	case len(l.resend) > 0:
		d := l.resend[0]
		t := b.advance(l, d)
		if d.sent == d.segments() {
			l.resend = l.resend[1:]
		}
		return text(t)
	case l.sticky != nil:
		return text(b.advance(l, l.sticky))
	}
	l.held = false
	now := time.Now()
	for range b.clients {
		l.turn++
		c := b.clients[l.turn%len(b.clients)]
		if len(c.pending) > 0 && l.serves(c) {
			segment := c.pending[0].piece > 0
			if segment && now.Before(l.free) {
				l.held = true
				continue
			}
			if p := c.pending; b.faults.swap > 0 && len(p) > 1 && p[0].sent == 0 && p[0].piece == 0 && p[1].piece == 0 {
				b.faults.swap--
				p[0], p[1] = p[1], p[0]
			}
			t := b.advance(l, c.pending[0])
			if segment {
				l.free = now.Add(time.Duration(len(t)) * wireTime)
			}
			return text(t)
		}
	}
	return controlFrame{}, false
}

// advance encodes the next frame of d.
func (b *Backend) advance(l *link, d *delivery) []byte {
	t, complete := b.frame(l, d)
	l.sticky = nil
	if d.spread && !complete && len(l.resend) == 0 {
		l.sticky = d
	}
	if b.faults.duplicate > 0 {
		b.faults.duplicate--
		l.again = append(l.again, t)
	}
	return t
}

// Connects lists all WebSockets that hosts opened, oldest first.
func (b *Backend) Connects() []Connect {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Connect, len(b.connects))
	for i, c := range b.connects {
		all[i] = *c
	}
	return all
}

// AwaitConnect waits for the nth WebSocket, counted from 1, and returns it.
func (b *Backend) AwaitConnect(ctx context.Context, n int) (Connect, error) {
	return b.AwaitConnectWhere(ctx, n, func(Connect) bool { return true })
}

// AwaitEnd waits until the nth WebSocket has ended, and returns it.
func (b *Backend) AwaitEnd(ctx context.Context, n int) (Connect, error) {
	return b.AwaitConnectWhere(ctx, n, func(c Connect) bool { return !c.Ended.IsZero() })
}

// AwaitConnectWhere waits until the nth WebSocket is there and matches. What it
// has sent is no reason to look again.
func (b *Backend) AwaitConnectWhere(ctx context.Context, n int, match func(Connect) bool) (Connect, error) {
	var c Connect
	err := b.await(ctx, &b.changed, func() bool {
		if len(b.connects) < n {
			return false
		}
		c = *b.connects[n-1]
		return match(c)
	})
	if err != nil {
		return Connect{}, fmt.Errorf("awaiting connect %d: %w", n, err)
	}
	return c, nil
}

// Drop ends all links without a word, and reports how many there were.
func (b *Backend) Drop() int {
	links := b.live()
	for _, l := range links {
		l.drop("dropped")
	}
	return len(links)
}

// CloseLinks ends all links with a close frame.
func (b *Backend) CloseLinks(code int, reason string) {
	for _, l := range b.live() {
		l.close(code, reason)
	}
}

func (b *Backend) live() []*link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.links)
}
