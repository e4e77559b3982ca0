package remotecontrol

import (
	"strings"
	"time"
	"unicode/utf8"
)

// A failureKind is what a failure means to the connection loop (spec 0.3).
type failureKind uint8

const (
	_                failureKind = iota // the zero value is a bug, not a default
	failedOther                         // tried again after a back-off
	wouldBlock                          // recoverable: tried again after recoverableDelay
	permissionDenied                    // the backend, or the host, refuses this account
	invalidInput                        // something that cannot be sent
	notFound                            // the backend does not know the enrollment
	timedOut                            // no answer in time
)

// A failure is why there is no relay link. Its text is the spec's and holds no
// secret.
type failure struct {
	kind   failureKind
	text   string
	err    error   // what it came from; nil if the backend answered
	answer *answer // what the backend said; nil if it said nothing

	auth   bool      // other credentials may be the cure: a change of them ends the wait
	held   bool      // waits at the cap, whatever went before
	user   bool      // only a person can end it
	cause  string    // the line for a person, if text is not that
	remedy string    // what a person can do
	until  time.Time // when the obstacle goes away, if that is known
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// retryAfter is what the backend asked for, or 0.
func (f *failure) retryAfter() time.Duration {
	if f.answer == nil {
		return 0
	}
	return f.answer.retryAfter
}

// line is what a person reads: the server's words if it had any.
func (f *failure) line() string {
	switch {
	case f.cause != "":
		return f.cause
	case f.answer == nil:
		return oneLine(f.text)
	case f.answer.html:
		return "blocked before the backend: an HTML page with HTTP " + f.answer.status() + ", cf-ray: " + f.answer.cfRay
	}
	words := f.answer.words()
	switch {
	case words == "":
		return oneLine(f.text)
	case f.user:
		return words
	}
	return "HTTP " + f.answer.status() + ": " + words
}

// A refusal is why the transport does not start. Its text is the whole line
// that the host prints last, so it gets no prefix on the way.
type refusal struct {
	text  string
	class error // of the SDK's sentinels
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.class }

// maxLineBytes bounds what the status shows of one error.
const maxLineBytes = 1 << 10

// oneLine makes text of others fit for a status: no control characters, and
// not without end.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' }), " ")
	return cutAt(s, maxLineBytes)
}

// cutAt cuts s at a character's end at most limit bytes behind its start, and
// shows that it did.
func cutAt(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + "..."
}
