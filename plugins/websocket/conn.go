package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
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

	heard      atomic.Int64 // when the peer gave its last sign of life, on the server's coarse clock
	pinged     atomic.Int64 // when it was pinged last
	writes     uint64       // of the writer, when the clock looked last; of the clock
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
		c.timeout = time.AfterFunc(closeGrace, func() { c.w.fail(errSilent) })
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
		c.hear()
		if kind != websocket.TextMessage {
			if !c.binary {
				c.binary = true
				c.server.log.Warn("dropping unsupported binary websocket message", "connection", c.link.ID())
			}
			if _, err := io.Copy(io.Discard, heard{c, r}); err != nil {
				return c.readError(err)
			}
			continue
		}
		p, err := c.readMessage(r)
		if err == nil && !utf8.Valid(p) {
			err = errNotUTF8
		}
		if err == nil {
			c.delivering.Store(true)
			err = c.link.Deliver(ctx, p)
			c.hear()
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

var (
	errNotUTF8 = errors.New("not UTF-8")
	errNotRead = errors.New("the peer does not read its control frames")
	errSilent  = errors.New("no sign of life")
)

// hear notes a sign of life. Every read is one: a message may take longer than
// a peer may be silent.
func (c *conn) hear() { c.heard.Store(c.server.clock.Load()) }

// A heard is a reader of the peer's message whose every read is a sign of life.
type heard struct {
	c *conn
	r io.Reader
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	if n > 0 {
		h.c.hear()
	}
	return n, err
}

// readMessage reads one message into a buffer of the pool. It reads at most
// one byte over the limit.
func (c *conn) readMessage(r io.Reader) ([]byte, error) {
	limit := c.server.cfg.MaxMessageBytes
	p := c.server.buffers.get(0)
	for {
		if len(p) == cap(p) {
			p = c.server.buffers.grow(p, 1)
		}
		n, err := heard{c, r}.Read(p[len(p):min(cap(p), limit+1)])
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
	if errors.Is(err, net.ErrClosed) { // this side closed it, and knows why
		return pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: c.w.whyFailed()}
	}
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return pluginsdk.CloseReason{Code: pluginsdk.ClosePeerGone, Text: socketText(err)}
	}
	return pluginsdk.CloseReason{Code: pluginsdk.CloseProtocol, Text: "the peer broke the websocket protocol: " + err.Error()}
}

// socketText says how a socket ended, without its addresses.
func socketText(err error) string {
	if ne, ok := errors.AsType[*net.OpError](err); ok {
		return "the socket failed: " + ne.Err.Error()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return "the socket failed: " + errno.Error()
	}
	return "the socket ended"
}

// setHandlers routes control frames through the writer, in order with the data.
func (c *conn) setHandlers() {
	c.ws.SetPingHandler(func(data string) error {
		c.hear()
		c.w.control(websocket.PongMessage, []byte(data))
		return nil
	})
	c.ws.SetPongHandler(func(string) error {
		c.hear()
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
	// A write that had to wait and does so no longer is a sign of life: the
	// peer's side took what was before it. One that did not wait proves nothing,
	// the socket takes some for a peer that is gone.
	writes := c.w.writes.Load()
	if writes != c.writes && c.writes%2 == 1 {
		c.heard.Store(now)
	}
	c.writes = writes
	if c.delivering.Load() {
		return
	}
	quiet := time.Duration(now - c.heard.Load())
	switch {
	case quiet >= time.Duration(c.server.cfg.PongTimeout):
		c.w.fail(errSilent)
	case quiet >= time.Duration(c.server.cfg.PingInterval) && time.Duration(now-c.pinged.Load()) >= time.Duration(c.server.cfg.PingInterval):
		c.pinged.Store(now)
		c.w.control(websocket.PingMessage, nil)
	}
}
