package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/transporthost/transporthost/shared/transport"
)

// reasonDomain marks our reasons among the ErrorInfo details of others.
const reasonDomain = "transporthost"

type reason struct {
	name string
	err  error
	code codes.Code
}

// reasons returns the one list of errors that keep their identity between
// processes. A gRPC code cannot carry it: gRPC itself answers with
// ResourceExhausted for a message over its limit and with Unavailable for a
// dead plugin.
func reasons() []reason {
	return []reason{
		{"CONN_CLOSED", transport.ErrConnClosed, codes.FailedPrecondition},
		{"TOO_LARGE", transport.ErrTooLarge, codes.FailedPrecondition},
		{"OVERLOADED", transport.ErrOverloaded, codes.FailedPrecondition},
		{"LINK_CLOSED", transport.ErrLinkClosed, codes.FailedPrecondition},
		{"STOPPING", transport.ErrStopping, codes.FailedPrecondition},
		{"INVALID_CONFIG", transport.ErrInvalidConfig, codes.InvalidArgument},
		{"PERMISSION_DENIED", transport.ErrPermissionDenied, codes.PermissionDenied},
		{"NOT_SUPPORTED", transport.ErrNotSupported, codes.Unimplemented},
		{"ALREADY_STARTED", transport.ErrAlreadyStarted, codes.FailedPrecondition},
		{"NOT_GRANTED", transport.ErrNotGranted, codes.PermissionDenied},
		{"NO_CREDENTIALS", transport.ErrNoCredentials, codes.FailedPrecondition},
		{"NOT_FOUND", transport.ErrNotFound, codes.NotFound},
	}
}

// A RemoteError is an error that came over the link. Its text is that of the
// other side, as one line that can be shown; errors.Is finds the sentinel that it
// was.
type RemoteError struct {
	Text string
	Err  error // one of the table, or nil
}

func (e *RemoteError) Error() string { return e.Text }
func (e *RemoteError) Unwrap() error { return e.Err }

// reasonOf returns the name of err in the table, or "".
func reasonOf(err error) (name string, code codes.Code) {
	for _, r := range reasons() {
		if errors.Is(err, r.err) {
			return r.name, r.code
		}
	}
	return "", codes.Unknown
}

// errorOf is the reverse of reasonOf: the error that arrives at the other side.
func errorOf(name, text string) error {
	for _, r := range reasons() {
		if r.name == name {
			return &RemoteError{Text: text, Err: r.err}
		}
	}
	return &RemoteError{Text: text}
}

// toStatus makes the gRPC status of an error of ours. It passes on errors that
// have a status already.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	name, code := reasonOf(err)
	if name == "" {
		if errors.Is(err, context.DeadlineExceeded) {
			code = codes.DeadlineExceeded
		}
		return status.Error(code, err.Error())
	}
	st, detailErr := status.New(code, err.Error()).WithDetails(&errdetails.ErrorInfo{Reason: name, Domain: reasonDomain})
	if detailErr != nil { // ErrorInfo always marshals
		return status.Error(code, err.Error())
	}
	return st.Err()
}

// fromStatus makes our error of a gRPC status. call names what was asked, for
// errors that are gRPC's own.
func fromStatus(call string, err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("calling %s: %w", call, err)
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == reasonDomain {
			return errorOf(info.GetReason(), words(st))
		}
	}
	switch st.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("calling %s: no answer in time: %w", call, context.DeadlineExceeded)
	case codes.Canceled:
		return fmt.Errorf("calling %s: %w", call, context.Canceled)
	case codes.Unavailable:
		return fmt.Errorf("calling %s: %w: %s", call, transport.ErrLinkClosed, words(st))
	case codes.Unknown: // an error of the plugin's author, in its own words
		return &RemoteError{Text: words(st)}
	case codes.Unimplemented:
		return fmt.Errorf("calling %s: %w: %s", call, transport.ErrNotSupported, words(st))
	}
	return fmt.Errorf("calling %s: %s: %s", call, st.Code(), words(st))
}

// maxWords bounds what is kept of the other side's words, in bytes.
const maxWords = 2 << 10

// words are the other side's, fit to be shown: a stranger wrote them.
func words(st *status.Status) string { return transport.Line(st.Message(), maxWords) }
