package websocket

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// lobbySockets bounds the sockets of one listener that are no connections:
	// those that have not said their request, ask for health or are refused.
	// They are beside max_connections, so that whoever is over that limit is
	// still told so. So many cost 10 MiB at most, and 5,000 refusals a second
	// need a tenth of them.
	lobbySockets = 512
	// lobbyTime is what a socket gets while others wait for its place, and
	// header_timeout while nobody does: a request takes a round trip or two.
	lobbyTime = time.Second
)

// A lobby is a listener whose sockets are counted until they are upgraded or
// closed. While it is full, peers wait in the kernel's queue; the socket that
// has been in it for longest is closed for them once it has had its time, so
// that peers that say nothing cannot keep others out.
type lobby struct {
	net.Listener
	most  int           // sockets
	least time.Duration // for each
	left  chan struct{} // one slot: a socket has left
	ended chan struct{} // closed by Close
	end   sync.Once

	mu     sync.Mutex // guards what follows
	since  map[net.Conn]time.Time
	idle   map[net.Conn]bool // of them: they wait for another request
	closed bool              // nobody comes in any more
	empty  chan struct{}     // closed when nobody is left, once closed is set
}

var _ net.Listener = (*lobby)(nil)

func newLobby(l net.Listener) *lobby {
	return &lobby{
		Listener: l, most: lobbySockets, least: lobbyTime,
		left: make(chan struct{}, 1), ended: make(chan struct{}), since: make(map[net.Conn]time.Time),
		idle: make(map[net.Conn]bool), empty: make(chan struct{}),
	}
}

// Accept implements [net.Listener]. It is called from one goroutine.
func (l *lobby) Accept() (net.Conn, error) {
	for {
		wait := l.makeRoom(time.Now())
		if wait <= 0 {
			return l.Listener.Accept()
		}
		t := time.NewTimer(wait)
		select {
		case <-l.left:
		case <-t.C:
		case <-l.ended:
			t.Stop()
			return nil, net.ErrClosed
		}
		t.Stop()
	}
}

// Close implements [net.Listener].
func (l *lobby) Close() error {
	l.end.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// makeRoom returns how long the oldest socket may still stay; 0 if there is
// room.
func (l *lobby) makeRoom(now time.Time) time.Duration {
	l.mu.Lock()
	if len(l.since) < l.most {
		l.mu.Unlock()
		return 0
	}
	var oldest net.Conn
	for c, t := range l.since {
		if oldest == nil || t.Before(l.since[oldest]) {
			oldest = c
		}
	}
	if wait := l.least - now.Sub(l.since[oldest]); wait > 0 {
		l.mu.Unlock()
		return wait
	}
	l.forgetLocked(oldest)
	l.mu.Unlock()
	_ = bare(oldest).Close() // whoever serves it sees the end of it
	return 0
}

// track is the server's [http.Server.ConnState]. It hears of a new socket
// before the next Accept.
func (l *lobby) track(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.idle, c)
	switch state {
	case http.StateNew:
		l.since[c] = time.Now()
	case http.StateIdle:
		if l.closed {
			_ = bare(c).Close()
		} else if _, counted := l.since[c]; counted {
			l.idle[c] = true
		}
	case http.StateHijacked, http.StateClosed:
		l.forgetLocked(c)
		select {
		case l.left <- struct{}{}:
		default: // it is being looked at
		}
	}
}

func (l *lobby) forgetLocked(c net.Conn) {
	delete(l.since, c)
	delete(l.idle, c)
	l.seeEmptyLocked()
}

func (l *lobby) seeEmptyLocked() {
	if l.closed && len(l.since) == 0 {
		select {
		case <-l.empty:
		default:
			close(l.empty)
		}
	}
}

// clear returns when everybody who was let in has become a connection, or has
// left, or ctx ends. Accept has returned for the last time.
func (l *lobby) clear(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	for c := range l.idle {
		_ = bare(c).Close()
	}
	l.seeEmptyLocked()
	l.mu.Unlock()
	select {
	case <-l.empty:
	case <-ctx.Done():
	}
}

// bare returns what lies below TLS. To close that waits for nobody, whereas TLS
// says goodbye first, for up to 5 s.
func bare(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}
