package pluginsdk

import "github.com/transporthost/transporthost/shared/transport"

// What a transport may need to see of a JSON-RPC message without decoding it.
type (
	// Peeked is what [Peek] saw. (A [Message] is one that an [Inbox] gives.)
	Peeked = transport.Message
	Kind   = transport.Kind
)

const (
	Request       = transport.Request
	Notification  = transport.Notification
	Response      = transport.Response
	ErrorResponse = transport.ErrorResponse
)

// Peek is [transport.Peek].
func Peek(p []byte) (Peeked, error) { return transport.Peek(p) }
