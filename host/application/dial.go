package application

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/shared/transport"
)

// An Endpoint is a server that speaks JSON-RPC, and is dialled once for every
// connection.
type Endpoint struct {
	URL             string            // unix:///PATH, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH
	Framing         transport.Framing // of unix://; empty: ndjson
	MaxMessageBytes int               // 0: 64 MiB
	StopGrace       time.Duration     // from the end of what is sent to the end of the socket; 0: 2 s
}

// dialTimeout bounds the way to a connection, with a handshake: a peer waits
// for it.
const dialTimeout = 10 * time.Second

// Check says what is wrong with the address.
func (e Endpoint) Check() error {
	u, err := url.Parse(e.URL)
	if err == nil {
		switch u.Scheme {
		case "unix":
			if u.Host == "" && filepath.IsAbs(u.Path) && e.URL == "unix://"+u.Path {
				return nil
			}
		case "ws", "wss":
			if u.Hostname() != "" && u.User == nil && u.Fragment == "" {
				return nil
			}
		}
	}
	return fmt.Errorf("invalid dial URL `%s`; expected `unix:///PATH`, `ws://HOST:PORT/PATH` or `wss://HOST:PORT/PATH`", e.URL)
}

// NewDial makes the application that dials an endpoint for every connection.
func NewDial(e Endpoint, log hclog.Logger) (*PerConnection, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	e.Framing = cmp.Or(e.Framing, transport.NDJSON)
	e.MaxMessageBytes = cmp.Or(e.MaxMessageBytes, transport.DefaultMaxMessageBytes)
	e.StopGrace = cmp.Or(e.StopGrace, DefaultStopGrace)
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, err // Check parsed it
	}
	// The query may hold a token.
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	a := newPerConnection("dial", shown.String(), log)
	log = log.With("application", a.name)
	if u.Scheme == "unix" {
		a.frame = func(dst, p []byte) []byte { return transport.AppendFrame(dst, p, e.Framing) }
		a.connect = func(ctx context.Context) (upstream, error) { return dialUnix(ctx, e, u.Path, log) }
	} else {
		a.frame = appendSized
		a.connect = func(ctx context.Context) (upstream, error) { return dialWebSocket(ctx, e, a.name, log) }
	}
	return a, nil
}

// A socketEnd is how a socket came to its end. The first cause counts.
type socketEnd struct {
	name  string
	once  sync.Once
	done  chan struct{}
	text  string // before done is closed
	clean bool
}

func (s *socketEnd) end(err error, clean bool) {
	s.once.Do(func() {
		s.text, s.clean = fmt.Sprintf("application %q has closed the connection", s.name), clean
		if !clean {
			s.text = fmt.Sprintf("application %q: %v", s.name, err)
		}
		close(s.done)
	})
}

func (s *socketEnd) ended() <-chan struct{} { return s.done }
func (s *socketEnd) ending() (string, bool) { return s.text, s.clean }

func (s *socketEnd) deaf(err error) string {
	return fmt.Sprintf("application %q takes nothing any more: %v", s.name, err)
}

func (s *socketEnd) gone(within time.Duration) bool {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-s.done:
		return true
	case <-t.C:
		return false
	}
}

// A stream is a byte stream as an [upstream].
type stream struct {
	socketEnd
	conn  *net.UnixConn
	in    *transport.FrameReader
	grace time.Duration
	log   hclog.Logger
}

func dialUnix(ctx context.Context, e Endpoint, path string, log hclog.Logger) (upstream, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dialling the application: %w; is it running?", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok { // it was dialled as one
		return nil, errors.Join(fmt.Errorf("dialling the application: %T is no unix socket", c), c.Close())
	}
	return &stream{
		socketEnd: socketEnd{name: "unix://" + path, done: make(chan struct{})},
		conn:      conn, in: transport.NewFrameReader(conn, e.Framing, e.MaxMessageBytes), grace: e.StopGrace, log: log,
	}, nil
}

func (s *stream) tend() { <-s.done }

func (s *stream) write(frames []byte) error {
	_, err := s.conn.Write(frames)
	return err
}

func (s *stream) next() ([]byte, error) {
	p, err := s.in.Next()
	s.note(err)
	return p, err
}

// note ends the stream if err does.
func (s *stream) note(err error) {
	_, oversize := errors.AsType[*transport.OversizeError](err)
	_, framing := errors.AsType[*transport.FramingError](err)
	if err != nil && !oversize && !framing {
		s.end(err, errors.Is(err, io.EOF))
	}
}

func (s *stream) drain() {
	_, err := io.Copy(io.Discard, s.conn)
	s.note(cmp.Or(err, io.EOF))
}

func (s *stream) finish() { _ = s.conn.CloseWrite() }

func (s *stream) stop() {
	s.finish()
	if !s.gone(s.grace) {
		_ = s.conn.Close()
		<-s.done // the reader sees it
	}
}

func (s *stream) release()             { _ = s.conn.Close() }
func (s *stream) logger() hclog.Logger { return s.log }

// A webSocket is a WebSocket as an [upstream]: one message a text frame.
type webSocket struct {
	socketEnd
	conn  *websocket.Conn
	text  bytes.Buffer // the last message
	grace time.Duration
	log   hclog.Logger
}

func dialWebSocket(ctx context.Context, e Endpoint, name string, log hclog.Logger) (upstream, error) {
	d := websocket.Dialer{HandshakeTimeout: dialTimeout, Proxy: http.ProxyFromEnvironment}
	c, answer, err := d.DialContext(ctx, e.URL, nil)
	if err != nil {
		if answer != nil {
			_ = answer.Body.Close()
			return nil, fmt.Errorf("dialling the application at %s: the server answers %s: %w", name, answer.Status, err)
		}
		return nil, fmt.Errorf("dialling the application at %s: %w; is it running?", name, err)
	}
	c.SetReadLimit(int64(e.MaxMessageBytes))
	return &webSocket{socketEnd: socketEnd{name: name, done: make(chan struct{})}, conn: c, grace: e.StopGrace, log: log}, nil
}

func (s *webSocket) tend() { <-s.done }

// appendSized writes p with its size in front.
func appendSized(dst, p []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(p))), p...)
}

func (s *webSocket) write(frames []byte) error {
	for len(frames) > 0 {
		size, n := binary.Uvarint(frames)
		frames = frames[n:]
		if err := s.conn.WriteMessage(websocket.TextMessage, frames[:size]); err != nil {
			return err
		}
		frames = frames[size:]
	}
	return nil
}

func (s *webSocket) next() ([]byte, error) {
	for {
		kind, r, err := s.conn.NextReader()
		if err == nil && kind != websocket.TextMessage {
			s.log.Warn("the application sent a binary frame; it is dropped")
			continue
		}
		if err == nil {
			if s.text.Cap() > transport.WindowBytes {
				s.text = bytes.Buffer{}
			}
			s.text.Reset()
			_, err = s.text.ReadFrom(r)
		}
		if err != nil {
			s.end(err, websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway))
			return nil, err
		}
		return s.text.Bytes(), nil
	}
}

func (s *webSocket) drain() {
	for {
		if _, err := s.next(); err != nil {
			return
		}
	}
}

// finish sends the close frame; the server answers with its own.
func (s *webSocket) finish() {
	_ = s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(s.grace))
}

func (s *webSocket) stop() {
	s.finish()
	if !s.gone(s.grace) {
		_ = s.conn.Close()
		<-s.done // the reader sees it
	}
}

func (s *webSocket) release()             { _ = s.conn.Close() }
func (s *webSocket) logger() hclog.Logger { return s.log }
