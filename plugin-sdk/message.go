package pluginsdk

import "github.com/transporthost/transporthost/shared/transport"

// What a transport may need to see of a JSON-RPC message without decoding it.
type (
	// Peeked is what [Peek] saw. (A [Message] is one that an [Inbox] gives.)
	Peeked = transport.Message
	Kind   = transport.Kind
	// A PeekError is a [transport.PeekError].
	PeekError = transport.PeekError
)

const (
	Request       = transport.Request
	Notification  = transport.Notification
	Response      = transport.Response
	ErrorResponse = transport.ErrorResponse
)

// For transports that work on messages of up to 64 MiB: they must not hold up
// their other connections by it.
type (
	// A Checker is a [transport.Checker]: it checks JSON in parts.
	Checker = transport.Checker
	// A Member is a [transport.Member].
	Member = transport.Member
	// A Pace is a [transport.Pace]: it cuts the work in steps of StepBytes.
	Pace = transport.Pace
)

// LargeBytes and StepBytes are those of [transport].
const (
	LargeBytes = transport.LargeBytes
	StepBytes  = transport.StepBytes
)

// Peek is [transport.Peek].
func Peek(p []byte) (Peeked, error) { return transport.Peek(p) }
