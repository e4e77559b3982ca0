package load

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// dialTimeout is how long a connection and its upgrade may take. It is long
// because ten thousand of them may queue at a busy listener.
const dialTimeout = 30 * time.Second

// maxFrame bounds what one frame of the server makes us allocate.
const maxFrame = 256 << 20

const (
	opContinuation = 0
	opText         = 1
	opClose        = 8
	opPing         = 9
	opPong         = 10
	finalBit       = 0x80
)

// A Socket is the client's end of a WebSocket, as cheap as it can be: it masks
// with key 0, which is legal and costs only the server something. Reading and
// writing may be concurrent, but only one of each at a time.
type Socket struct {
	conn    net.Conn
	buf     []byte // buf[from:to] has been read and not been looked at
	from    int
	to      int
	partial []byte // the fragments so far of a message
}

// Dial connects to ws://HOST:PORT/PATH, or to unix://PATH, with the header
// given. readBuffer is how many bytes the socket reads at once.
func Dial(ctx context.Context, target string, header http.Header, readBuffer int) (*Socket, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, fmt.Errorf("parsing the server's URL: %w", err)
	}
	network, address := "tcp", u.Host
	switch u.Scheme {
	case "ws":
	case "unix":
		network, address = "unix", u.Path
		u = &url.URL{Scheme: "ws", Host: "localhost", Path: "/"}
	default:
		return nil, fmt.Errorf("the server's URL is %q, want ws:// or unix://", target)
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	s := &Socket{conn: conn, buf: make([]byte, max(readBuffer, 256))}
	if err := s.upgrade(u, header); err != nil {
		return nil, errors.Join(fmt.Errorf("upgrading to WebSocket: %w", err), conn.Close())
	}
	return s, nil
}

func (s *Socket) upgrade(u *url.URL, header http.Header) error {
	if err := s.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	request := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dHJhbnNwb3J0aG9zdCBsZA=="}, // any 16 bytes: nobody caches our answers
	}}
	for name, values := range header {
		request.Header[name] = values
	}
	if err := request.Write(s.conn); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s.conn, len(s.buf))
	response, err := http.ReadResponse(r, request)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusSwitchingProtocols || !strings.EqualFold(response.Header.Get("Upgrade"), "websocket") {
		why, _ := io.ReadAll(io.LimitReader(response.Body, 200)) // what there is of it
		return fmt.Errorf("the server answered %s: %q", response.Status, why)
	}
	early, err := r.Peek(r.Buffered())
	if err != nil {
		return err
	}
	s.to = copy(s.buf, early)
	return s.conn.SetDeadline(time.Time{})
}

// Close closes the socket without a closing handshake and unblocks all calls.
func (s *Socket) Close() error { return s.conn.Close() }

// AppendFrame appends payload as one masked text frame to b.
func AppendFrame(b, payload []byte) []byte {
	return append(appendHeader(b, opText, len(payload)), payload...)
}

// appendHeader appends the header of a final, masked frame with key 0.
func appendHeader(b []byte, opcode byte, length int) []byte {
	const masked = 0x80
	b = append(b, finalBit|opcode)
	switch {
	case length < 126:
		b = append(b, masked|byte(length))
	case length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(length))
	}
	return append(b, 0, 0, 0, 0)
}

// Write sends frames that AppendFrame made, with one system call if the kernel
// takes them.
func (s *Socket) Write(frames []byte) error {
	_, err := s.conn.Write(frames)
	return err
}

// Next returns the next message, on loan until the next call. It answers pings,
// and returns a *ClosedError when the server closes.
func (s *Socket) Next() ([]byte, error) {
	s.partial = s.partial[:0]
	for {
		final, opcode, payload, err := s.frame()
		if err != nil {
			return nil, err
		}
		switch opcode {
		case opPing:
			if err := s.Write(append(appendHeader(nil, opPong, len(payload)), payload...)); err != nil {
				return nil, err
			}
		case opPong:
		case opClose:
			closed := &ClosedError{Code: 1005} // no code was sent
			if len(payload) >= 2 {
				closed.Code, closed.Reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
			}
			return nil, closed
		default:
			if final && opcode != opContinuation {
				return payload, nil
			}
			if s.partial = append(s.partial, payload...); final {
				return s.partial, nil
			}
		}
	}
}

// frame reads one frame; its payload lies in the buffer.
func (s *Socket) frame() (final bool, opcode byte, payload []byte, err error) {
	if err := s.fill(2); err != nil {
		return false, 0, nil, err
	}
	first, short := s.buf[s.from], int(s.buf[s.from+1])
	head, length := 2, uint64(short)
	switch short {
	case 126, 127:
		head = 4 + (short-126)*6
		if err := s.fill(head); err != nil {
			return false, 0, nil, err
		}
		if length = uint64(binary.BigEndian.Uint16(s.buf[s.from+2:])); short == 127 {
			length = binary.BigEndian.Uint64(s.buf[s.from+2:])
		}
	}
	if short > 127 || length > maxFrame {
		return false, 0, nil, fmt.Errorf("the server sent a frame that is masked or over %d bytes", maxFrame)
	}
	if err := s.fill(head + int(length)); err != nil {
		return false, 0, nil, err
	}
	payload = s.buf[s.from+head : s.from+head+int(length)]
	s.from += head + int(length)
	return first&finalBit != 0, first & 0x0f, payload, nil
}

// fill reads until n bytes can be looked at.
func (s *Socket) fill(n int) error {
	for s.to-s.from < n {
		if s.from > 0 && (s.from == s.to || s.from+n > len(s.buf)) {
			s.to = copy(s.buf, s.buf[s.from:s.to])
			s.from = 0
		}
		if n > len(s.buf) {
			s.buf = slices.Grow(s.buf[:s.to], n-s.to)
			s.buf = s.buf[:cap(s.buf)]
		}
		got, err := s.conn.Read(s.buf[s.to:])
		s.to += got
		if err != nil && s.to-s.from < n {
			return err
		}
	}
	return nil
}

// A ClosedError is the server's close frame.
type ClosedError struct {
	Code   int
	Reason string
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("the server closed the connection: %d %s", e.Code, e.Reason)
}
