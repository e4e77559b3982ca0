package pluginsdk

import (
	"io"

	"github.com/transporthost/transporthost/shared/transport"
)

// Framings of byte streams, for transports that are one.
type (
	Framing       = transport.Framing
	FrameReader   = transport.FrameReader
	OversizeError = transport.OversizeError
	FramingError  = transport.FramingError
)

const (
	NDJSON        = transport.NDJSON
	ContentLength = transport.ContentLength
)

// Codes of the JSON-RPC errors that a transport answers with by itself.
const (
	CodeParseError     = transport.CodeParseError
	CodeInvalidRequest = transport.CodeInvalidRequest
	CodeInternalError  = transport.CodeInternalError
	CodeOverloaded     = transport.CodeOverloaded // its text is OverloadedText
	OverloadedText     = transport.OverloadedText
)

// ParseFraming is [transport.ParseFraming].
func ParseFraming(s string) (Framing, error) { return transport.ParseFraming(s) }

// NewFrameReader is [transport.NewFrameReader].
func NewFrameReader(r io.Reader, f Framing, maxBytes int) *FrameReader {
	return transport.NewFrameReader(r, f, maxBytes)
}

// AppendFrame is [transport.AppendFrame].
func AppendFrame(dst, payload []byte, f Framing) []byte {
	return transport.AppendFrame(dst, payload, f)
}

// AppendError is [transport.AppendError].
func AppendError(b, id []byte, code int, message string) []byte {
	return transport.AppendError(b, id, code, message)
}
