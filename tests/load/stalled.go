package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// stalled are peers that send and never read.
type stalled struct {
	done   chan struct{}
	once   sync.Once
	sent   atomic.Int64
	closed atomic.Int64
}

func newStalled() *stalled { return &stalled{done: make(chan struct{})} }

// run connects the peers, lets each of them send until it may not or cannot,
// and keeps the connections open until stop.
func (s *stalled) run(ctx context.Context, o Options, fail context.CancelCauseFunc) {
	sockets, err := dialAll(ctx, o, o.Stalled, 256)
	if err != nil {
		fail(fmt.Errorf("connecting peers that never read: %w", err))
		return
	}
	var sending sync.WaitGroup
	for i, socket := range sockets {
		sending.Go(func() { s.send(socket, newRequest(-1-i, o.StalledSize, o.Method), o.StalledMax) })
	}
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	for _, socket := range sockets {
		_ = socket.Close() // unblocks its sender
	}
	sending.Wait()
}

// send sends until the server takes no more. The write that blocks is ended by
// the closing of the socket.
func (s *stalled) send(socket *Socket, r request, limit int) {
	for id, sent := uint64(firstID), 0; sent < limit; id++ {
		n, err := socket.conn.Write(r.withID(id))
		s.sent.Add(int64(n))
		sent += n
		if err != nil {
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				s.closed.Add(1)
			}
			return
		}
	}
}

// stop lets run end.
func (s *stalled) stop() { s.once.Do(func() { close(s.done) }) }

// outcome returns how many of the peers the server closed while they sent, and
// the bytes that all could send.
func (s *stalled) outcome() (closed int, sent int64) { return int(s.closed.Load()), s.sent.Load() }

// Idle are connections that do nothing.
type Idle struct{ sockets []*Socket }

// OpenIdle opens n connections.
func OpenIdle(ctx context.Context, url string, n int) (*Idle, error) {
	sockets, err := dialAll(ctx, Options{URL: url}, n, 256)
	if err != nil {
		return nil, fmt.Errorf("opening %d idle connections: %w", n, err)
	}
	for _, s := range sockets {
		s.buf = nil // nothing will come
	}
	return &Idle{sockets}, nil
}

// Alive returns how many of the connections the server has not closed.
func (i *Idle) Alive() int {
	// A read needs a deadline in the future to look at the socket at all, and
	// ten thousand of them, one after the other, would take long.
	const lookers, look = 100, 5 * time.Millisecond
	var alive, next atomic.Int64
	var looking sync.WaitGroup
	for range lookers {
		looking.Go(func() {
			var one [1]byte
			for n := int(next.Add(1)) - 1; n < len(i.sockets); n = int(next.Add(1)) - 1 {
				conn := i.sockets[n].conn
				if conn.SetReadDeadline(time.Now().Add(look)) != nil {
					continue
				}
				if _, err := conn.Read(one[:]); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					alive.Add(1)
				}
			}
		})
	}
	looking.Wait()
	return int(alive.Load())
}

// Close closes all connections.
func (i *Idle) Close() {
	for _, s := range i.sockets {
		_ = s.Close()
	}
}
