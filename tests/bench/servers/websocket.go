package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// A Style is how a server writes.
type Style string

const (
	Plain      Style = "plain"      // one write per message, as every tutorial does it
	Coalescing Style = "coalescing" // one write for all answers to what one read of the socket brought
)

// Serve answers JSON-RPC requests with their params on every WebSocket that
// connects to l, until ctx ends.
func Serve(ctx context.Context, l net.Listener, style Style) error {
	switch style {
	case Plain:
	case Coalescing:
		l = coalescingListener{l}
	default:
		return fmt.Errorf("there is no server style %q", style)
	}
	var upgrader websocket.Upgrader
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // the upgrader has answered
		}
		defer conn.Close()
		echo(conn)
	})}
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// echo serves one peer until it goes or sends something else than a request.
func echo(conn *websocket.Conn) {
	var answer []byte
	for {
		_, payload, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if answer, err = appendEcho(answer[:0], payload); err != nil {
			return
		}
		if err := conn.WriteMessage(websocket.TextMessage, answer); err != nil {
			return
		}
	}
}

// A coalescingListener accepts connections that coalesce.
type coalescingListener struct{ net.Listener }

func (l coalescingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &coalescingConn{Conn: conn}, nil
}

// maxPending bounds what a coalescingConn keeps before it writes.
const maxPending = 64 << 10

// A coalescingConn keeps what is written until the next read: when the reader
// comes back for more it has handled all that the last read brought. It has one
// user at a time, because the upgrade waits for the server's own reader.
type coalescingConn struct {
	net.Conn
	pending []byte
}

func (c *coalescingConn) Write(p []byte) (int, error) {
	c.pending = append(c.pending, p...)
	if len(c.pending) < maxPending {
		return len(p), nil
	}
	return len(p), c.flush()
}

func (c *coalescingConn) Read(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *coalescingConn) Close() error { return errors.Join(c.flush(), c.Conn.Close()) }

func (c *coalescingConn) flush() error {
	if len(c.pending) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.pending)
	c.pending = c.pending[:0]
	return err
}
