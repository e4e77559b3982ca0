package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// A Framing is how messages are told apart on a byte stream.
type Framing string

const (
	NDJSON        Framing = "ndjson"         // one message a line (MCP, codex app-server)
	ContentLength Framing = "content-length" // headers, an empty line, the message (language servers)
)

// ParseFraming returns the framing called s.
func ParseFraming(s string) (Framing, error) {
	switch f := Framing(s); f {
	case NDJSON, ContentLength:
		return f, nil
	}
	return "", fmt.Errorf("framing %q, want %q or %q", s, NDJSON, ContentLength)
}

// An OversizeError is a frame over the limit. Its stream goes on behind it.
type OversizeError struct {
	Size  int64  // of the frame
	Limit int    // that was exceeded
	Head  []byte // how it began, at most 4 KiB
}

func (e *OversizeError) Error() string {
	return fmt.Sprintf("message of %d bytes; the limit is %d bytes", e.Size, e.Limit)
}

// Is makes errors.Is(err, ErrTooLarge) true.
func (e *OversizeError) Is(target error) bool { return target == ErrTooLarge }

// A FramingError is a byte stream that does not keep to its framing. Nothing
// that follows on the stream can be trusted.
type FramingError struct{ Text string }

func (e *FramingError) Error() string { return "content-length framing: " + e.Text }

const (
	oversizeHead  = 4 << 10
	readerBuffer  = 64 << 10
	keptFrame     = 64 << 10 // a larger buffer is not kept for the next frame
	maxHeaderLine = 8 << 10
	maxHeaders    = 32
)

// A FrameReader cuts a byte stream into payloads. It is used by one goroutine.
type FrameReader struct {
	r       *bufio.Reader
	framing Framing
	limit   int
	buf     []byte
	offset  int64
	rest    int64 // of an oversize frame with a length: thrown away by the next Next
}

// NewFrameReader reads frames of at most maxBytes from r.
func NewFrameReader(r io.Reader, f Framing, maxBytes int) *FrameReader {
	return &FrameReader{r: bufio.NewReaderSize(r, readerBuffer), framing: f, limit: maxBytes}
}

// Offset returns how many bytes of the stream lie up to the end of the last
// frame, or in an oversize one with a length, what was read of it.
func (r *FrameReader) Offset() int64 { return r.offset }

// Next returns the next payload, on loan until the next call. Empty lines are
// no frames, and a carriage return before a line feed is not part of one.
//
// It returns io.EOF at the stream's end, io.ErrUnexpectedEOF inside a frame
// with a length, an [*OversizeError] for a frame over the limit, after which
// Next goes on, a [*FramingError], or the reader's error. A last line without
// a line feed is a frame.
func (r *FrameReader) Next() ([]byte, error) {
	if cap(r.buf) > keptFrame {
		r.buf = nil
	}
	if r.rest > 0 {
		n, err := io.CopyN(io.Discard, r.r, r.rest)
		r.rest -= n
		r.offset += n
		if err != nil {
			return nil, unexpected(err)
		}
	}
	if r.framing == ContentLength {
		return r.nextLength()
	}
	for {
		p, err := r.line()
		if err != nil || len(p) > 0 {
			return p, err
		}
	}
}

// line returns the next line, without its end.
func (r *FrameReader) line() ([]byte, error) {
	r.buf = r.buf[:0]
	var size int64 // of the line so far, with its end
	for {
		part, err := r.r.ReadSlice('\n')
		size += int64(len(part))
		if keep := r.limit + 2 - len(r.buf); keep > 0 { // and its CR LF
			if err == nil && len(r.buf) == 0 {
				r.offset += size
				return r.checkLine(trimEnd(part), size)
			}
			r.buf = append(r.buf, part[:min(len(part), keep)]...)
		}
		switch {
		case err == nil:
			r.offset += size
			return r.checkLine(trimEnd(r.buf), size)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && size > 0:
			r.offset += size
			return r.checkLine(trimEnd(r.buf), size)
		default:
			return nil, err
		}
	}
}

func (r *FrameReader) checkLine(p []byte, size int64) ([]byte, error) {
	if len(p) <= r.limit && size <= int64(len(p))+2 {
		return p, nil
	}
	return nil, &OversizeError{Size: size, Limit: r.limit, Head: bytes.Clone(p[:min(len(p), oversizeHead)])}
}

func trimEnd(p []byte) []byte {
	p = bytes.TrimSuffix(p, []byte("\n"))
	return bytes.TrimSuffix(p, []byte("\r"))
}

// nextLength returns the next payload with a length before it.
func (r *FrameReader) nextLength() ([]byte, error) {
	length := int64(-1)
	var head int64
	for n := 0; ; n++ {
		if n > maxHeaders {
			return nil, &FramingError{fmt.Sprintf("more than %d header lines", maxHeaders)}
		}
		line, err := r.r.ReadSlice('\n')
		head += int64(len(line))
		switch {
		case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxHeaderLine:
			return nil, &FramingError{fmt.Sprintf("a header line of more than %d bytes", maxHeaderLine)}
		case errors.Is(err, io.EOF) && head > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		line = trimEnd(line)
		if len(line) == 0 {
			if n == 0 {
				n-- // empty lines between frames are tolerated
				continue
			}
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return nil, &FramingError{fmt.Sprintf("%q is no header; is the other side's framing ndjson?", clip(line))}
		}
		if !bytes.EqualFold(bytes.TrimSpace(name), []byte("Content-Length")) {
			continue
		}
		length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		if err != nil || length < 0 {
			return nil, &FramingError{fmt.Sprintf("Content-Length is %q", clip(bytes.TrimSpace(value)))}
		}
	}
	if length < 0 {
		return nil, &FramingError{"no Content-Length header"}
	}
	if length > int64(r.limit) {
		return nil, r.skip(head, length)
	}
	if int64(cap(r.buf)) < length {
		r.buf = make([]byte, length)
	}
	r.buf = r.buf[:length]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return nil, unexpected(err)
	}
	r.offset += head + length
	return r.buf, nil
}

// skip reads how an oversize frame begins.
func (r *FrameReader) skip(head, length int64) error {
	first := make([]byte, min(length, oversizeHead))
	n, err := io.ReadFull(r.r, first)
	if err != nil {
		return unexpected(err)
	}
	r.offset += head + int64(n)
	r.rest = length - int64(n)
	return &OversizeError{Size: length, Limit: r.limit, Head: first}
}

// unexpected is the end of a stream inside a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func clip(b []byte) []byte { return b[:min(len(b), 40)] }

// AppendFrame appends payload as one frame. For NDJSON, raw line feeds and
// carriage returns become spaces: in valid JSON they can only be white space,
// and what is not valid stays one line.
func AppendFrame(dst, payload []byte, f Framing) []byte {
	if f == ContentLength {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(payload)), 10)
		dst = append(dst, "\r\n\r\n"...)
		return append(dst, payload...)
	}
	start := len(dst)
	dst = append(dst, payload...)
	for p := dst[start:]; ; {
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			break
		}
		p[i] = ' '
		p = p[i+1:]
	}
	return append(dst, '\n')
}
