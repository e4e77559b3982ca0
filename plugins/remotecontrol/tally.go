package remotecontrol

import (
	"strconv"
	"sync/atomic"
)

// A tally counts what is worth knowing and nobody's error.
type tally struct {
	malformed  atomic.Int64 // frames that are no envelope
	binary     atomic.Int64 // binary frames
	segments   atomic.Int64 // inbound segments that did not fit
	repeated   atomic.Int64 // envelopes that had come before
	homeless   atomic.Int64 // messages for streams without a virtual client
	overloaded atomic.Int64 // messages that a full queue refused
	refused    atomic.Int64 // initializes that found no room for another virtual client
	tooLarge   atomic.Int64 // messages over the host's limit
	invalid    atomic.Int64 // messages of the application that are not JSON
}

// details are the counters that have counted anything, for status.
func (t *tally) details() map[string]string {
	details := make(map[string]string)
	for name, n := range map[string]*atomic.Int64{
		"malformed_frames": &t.malformed, "binary_frames": &t.binary, "dropped_segments": &t.segments, "repeated_envelopes": &t.repeated,
		"messages_without_client": &t.homeless, "overloaded": &t.overloaded, "refused_clients": &t.refused, "too_large": &t.tooLarge, "invalid_messages": &t.invalid,
	} {
		if n := n.Load(); n > 0 {
			details[name] = strconv.FormatInt(n, 10)
		}
	}
	return details
}

// complain counts something, and logs it the first time, the second, the
// fourth, and so on: what a relay does wrong, it does often.
func (c *clients) complain(counter *atomic.Int64, text string, args ...any) {
	if n := counter.Add(1); n&(n-1) == 0 {
		c.log.Warn(text, append(args, "times", n)...)
	}
}

func (c *clients) counters() map[string]string { return c.tally.details() }
