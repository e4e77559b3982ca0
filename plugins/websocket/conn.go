package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// A conn is one socket and its connection. Its reader is the only goroutine
// that it has while it is idle.
type conn struct {
	server *server
	ws     *websocket.Conn
	w      *writer
	link   *pluginsdk.Conn

	heard      atomic.Int64 // when the peer was heard last, on the server's coarse clock
	pinged     atomic.Int64 // when it was pinged last
	delivering atomic.Bool  // the reader waits for the host: it cannot hear the peer
	binary     bool         // a binary message was dropped; of the reader

	mu      sync.Mutex            // guards what follows
	ending  pluginsdk.CloseReason // why this side ends it; code 0: it does not
	timeout *time.Timer           // ends a socket whose peer does not say goodbye
}

var (
	_ pluginsdk.Sink   = (*conn)(nil)
	_ pluginsdk.Binder = (*conn)(nil)
)

// Bind implements [pluginsdk.Binder].
func (c *conn) Bind(link *pluginsdk.Conn) { c.link = link }

// Message implements [pluginsdk.Sink].
func (c *conn) Message(_ pluginsdk.Seq, p []byte) { c.w.message(p) }

// Flush implements [pluginsdk.Sink].
func (c *conn) Flush() { c.w.flush() }

// Close implements [pluginsdk.Sink].
func (c *conn) Close(reason pluginsdk.CloseReason) { c.end(reason) }

// end says goodbye after what is pending. The reader ends the connection when
// the peer answers, or after closeGrace.
func (c *conn) end(reason pluginsdk.CloseReason) {
	c.mu.Lock()
	again := c.ending.Code != 0
	if !again {
		c.ending = reason
		c.timeout = time.AfterFunc(closeGrace, func() { _ = c.w.sock.Close() })
	}
	c.mu.Unlock()
	if !again {
		c.w.control(websocket.CloseMessage, closeFrame(reason))
	}
}

// read delivers the peer's messages until the socket ends, and then ends the
// connection. It is the body of the connection's goroutine.
func (c *conn) read(ctx context.Context) {
	reason := c.readMessages(ctx)
	c.mu.Lock()
	if c.ending.Code != 0 {
		reason = c.ending
	}
	if c.timeout != nil {
		c.timeout.Stop()
	}
	c.mu.Unlock()
	c.w.stop()
	c.link.Close(reason)
}

func (c *conn) readMessages(ctx context.Context) pluginsdk.CloseReason {
	for {
		kind, r, err := c.ws.NextReader()
		if err != nil {
			return c.readError(err)
		}
		c.heard.Store(c.server.clock.Load())
		if kind != websocket.TextMessage {
			if !c.binary {
				c.binary = true
				c.server.log.Warn("dropping unsupported binary websocket message", "connection", c.link.ID())
			}
			continue // the next NextReader skips it
		}
		p, err := c.readMessage(r)
		if err == nil && !utf8.Valid(p) {
			err = errNotUTF8
		}
		if err == nil {
			c.delivering.Store(true)
			err = c.link.Deliver(ctx, p)
			c.heard.Store(c.server.clock.Load())
			c.delivering.Store(false)
		}
		c.server.buffers.put(p)
		switch {
		case err == nil:
		case errors.Is(err, pluginsdk.ErrTooLarge):
			limit := c.server.cfg.MaxMessageBytes
			text := fmt.Sprintf("message of more than %d bytes; the limit is %d bytes", limit, limit)
			c.w.text(pluginsdk.AppendError(nil, nil, pluginsdk.CodeInvalidRequest, text))
			return c.goodbye(pluginsdk.CloseReason{Code: pluginsdk.CloseTooLarge, Text: text})
		case errors.Is(err, errNotUTF8):
			return c.goodbye(pluginsdk.CloseReason{Code: pluginsdk.CloseInvalidData, Text: "a text message is not UTF-8"})
		case errors.Is(err, pluginsdk.ErrConnClosed) || errors.Is(err, pluginsdk.ErrLinkClosed):
			// The host ends it: what the peer still says is not wanted, only its
			// goodbye.
			return c.await()
		case ctx.Err() != nil:
			return c.goodbye(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway, Text: "the transport is stopping"})
		default:
			return c.readError(err)
		}
	}
}

var errNotUTF8 = errors.New("not UTF-8")

// readMessage reads one message into a buffer of the pool. It reads at most
// one byte over the limit.
func (c *conn) readMessage(r io.Reader) ([]byte, error) {
	limit := c.server.cfg.MaxMessageBytes
	p := c.server.buffers.get(0)
	for {
		if len(p) == cap(p) {
			p = c.server.buffers.grow(p, 1)
		}
		n, err := r.Read(p[len(p):min(cap(p), limit+1)])
		p = p[:len(p)+n]
		if len(p) > limit {
			return p, pluginsdk.ErrTooLarge
		}
		if err == io.EOF {
			return p, nil
		}
		if err != nil {
			return p, err
		}
	}
}

// goodbye ends the connection from the reader's side, and returns the reason
// once the peer has answered or closeGrace is over.
func (c *conn) goodbye(reason pluginsdk.CloseReason) pluginsdk.CloseReason {
	c.end(reason)
	return c.await()
}

// await discards what the peer sends until its socket ends. The timer of end,
// or the end of the server, ends it at last.
func (c *conn) await() pluginsdk.CloseReason {
	for {
		if _, _, err := c.ws.NextReader(); err != nil {
			return c.readError(err)
		}
	}
}

// readError says what the end of the socket means.
func (c *conn) readError(err error) pluginsdk.CloseReason {
	if ce, ok := errors.AsType[*websocket.CloseError](err); ok {
		if ce.Code == websocket.CloseAbnormalClosure {
			return pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: "the socket ended without a close frame"}
		}
		code := pluginsdk.CloseNormal
		if ce.Code == websocket.CloseGoingAway {
			code = pluginsdk.CloseGoingAway
		}
		return pluginsdk.CloseReason{Code: code, Text: fmt.Sprintf("closed by the peer with code %d", ce.Code)}
	}
	if errors.Is(err, net.ErrClosed) {
		return pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: "no sign of life"}
	}
	if ne, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		text := "the socket ended"
		if ne != nil {
			text = "the socket failed: " + ne.Err.Error()
		}
		return pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: text}
	}
	return pluginsdk.CloseReason{Code: pluginsdk.CloseProtocol, Text: "the peer broke the websocket protocol: " + err.Error()}
}

// setHandlers routes control frames through the writer, in order with the data.
func (c *conn) setHandlers() {
	c.ws.SetPingHandler(func(data string) error {
		c.heard.Store(c.server.clock.Load())
		c.w.control(websocket.PongMessage, []byte(data))
		return nil
	})
	c.ws.SetPongHandler(func(string) error {
		c.heard.Store(c.server.clock.Load())
		return nil
	})
	c.ws.SetCloseHandler(func(code int, _ string) error {
		c.mu.Lock()
		answered := c.ending.Code != 0
		c.mu.Unlock()
		if !answered {
			if code == websocket.CloseNoStatusReceived {
				c.w.control(websocket.CloseMessage, nil)
			} else {
				c.w.control(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""))
			}
		}
		return nil
	})
}

// check is called by the server's clock: it pings a quiet peer and gives up a
// silent one.
func (c *conn) check(now int64) {
	if c.delivering.Load() {
		return
	}
	quiet := time.Duration(now - c.heard.Load())
	switch {
	case quiet >= time.Duration(c.server.cfg.PongTimeout):
		_ = c.w.sock.Close()
	case quiet >= time.Duration(c.server.cfg.PingInterval) && time.Duration(now-c.pinged.Load()) >= time.Duration(c.server.cfg.PingInterval):
		c.pinged.Store(now)
		c.w.control(websocket.PingMessage, nil)
	}
}
