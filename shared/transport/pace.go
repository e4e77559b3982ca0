package transport

import "time"

const (
	// LargeBytes is where a message stops being worked on in one go, on receive
	// loops too: a window of them takes some ten microseconds to copy.
	LargeBytes = WindowBytes
	// StepBytes of a large message are worked on between two looks at the clock.
	StepBytes = 32 << 10

	// paceSlice is what everybody else may wait for the work on a large message.
	paceSlice = 100 * time.Microsecond
	// paceRest is asked for, and more is given: up to a millisecond if the
	// process has nothing else to do.
	paceRest = 20 * time.Microsecond
)

// A Pace cuts the work on a large message into slices of time, so that it never
// delays anybody for longer. Between them the goroutine sleeps. To yield is not
// enough: a process with one processor looks for what has come from its sockets
// only when no goroutine can run, or every ten milliseconds; and the other
// processes on the way of a small message want the machine's processors too.
//
// The zero value is ready. It belongs to one goroutine, which holds no lock
// that others wait for.
type Pace struct{ since time.Time }

// Step is called after every StepBytes, or what takes about as long. It may
// sleep.
func (p *Pace) Step() {
	now := time.Now()
	switch {
	case p.since.IsZero():
		p.since = now
	case now.Sub(p.since) >= paceSlice:
		time.Sleep(paceRest)
		p.since = time.Now()
	}
}

// LargeRest is what the sender of a payload of more than LargeBytes rests behind
// LargeWindowBytes of it, so that the processes on both sides of the link have time for others.
const LargeRest = 300 * time.Microsecond

// Append is append, in steps.
func (p *Pace) Append(dst, src []byte) []byte {
	for len(src) > 0 {
		n := min(len(src), StepBytes)
		dst = append(dst, src[:n]...)
		src = src[n:]
		p.Step()
	}
	return dst
}
