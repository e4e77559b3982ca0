package remotecontrol

import (
	"math/rand/v2"
	"time"
)

const (
	// recoverableDelay follows a failure of kind wouldBlock (spec 4.4).
	recoverableDelay = time.Second
	// backoffBase is the first delay; it doubles from the third failure on.
	backoffBase = 200 * time.Millisecond
	// backoffCap is where the delays stay, between its half and itself: hosts
	// that lost one backend together do not come back together.
	backoffCap = 30 * time.Second
	// settledAfter is how long a link must live for earlier failures to be
	// forgotten: a backend that accepts and closes is not a working one.
	settledAfter = time.Minute
	// atOnce bounds the delay after the end of such a link.
	atOnce = 200 * time.Millisecond
	// attemptSpacing is the least time between the beginnings of two attempts.
	attemptSpacing = 100 * time.Millisecond
)

// A backoff is the delay after failures in a row (spec 4.5, 0.2).
type backoff struct {
	failures int // counted to the cap and not beyond
	random   *rand.Rand
}

// next returns the delay after one more failure.
func (b *backoff) next() time.Duration {
	n := b.failures
	if base := backoffBase << max(n-1, 0); base < backoffCap { // n is small: see below
		b.failures++
		return (time.Duration(float64(base) * (0.9 + 0.2*b.random.Float64()))).Truncate(time.Millisecond)
	}
	return b.held()
}

// held returns a delay at the cap, whatever the count.
func (b *backoff) held() time.Duration {
	const half = backoffCap / 2
	return half + time.Duration(b.random.Int64N(int64(half)))
}

// reset forgets the failures.
func (b *backoff) reset() { b.failures = 0 }

// afterSettled is the delay after a link that had settled.
func (b *backoff) afterSettled() time.Duration { return time.Duration(b.random.Int64N(int64(atOnce))) }

// above adds jitter to a floor that the backend set, so that all whom it told
// the same do not come at the same moment.
func (b *backoff) above(floor time.Duration) time.Duration {
	return floor + time.Duration(b.random.Int64N(int64(floor/10+time.Second)))
}
