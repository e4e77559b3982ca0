package transport

import "log/slog"

// A Secret is text that does not print: not by fmt, not as JSON, not in a log.
// Where it must be written, write string(s), in one visible place.
//
// fmt cannot call methods on unexported fields: never format a whole struct
// that holds one.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
