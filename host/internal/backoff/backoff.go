// Package backoff decides how long to wait before something that failed is
// tried again, and when to give up.
package backoff

import (
	"math/rand/v2"
	"time"
)

// A Policy says how to wait. Its zero value does not work; see [Default].
type Policy struct {
	Min          time.Duration // bound of the first wait
	Max          time.Duration // bound of all waits; held, once it is reached
	ResetAfter   time.Duration // uptime after which earlier failures are forgotten
	GiveUpAfter  int           // failures within GiveUpWindow; 0: never
	GiveUpWindow time.Duration
}

// Default is the policy of plugins and of a shared application (design §5).
func Default() Policy {
	return Policy{
		Min: 250 * time.Millisecond, Max: 30 * time.Second, ResetAfter: time.Minute,
		GiveUpAfter: 5, GiveUpWindow: 10 * time.Minute,
	}
}

// A Backoff counts failures. It does no locking.
type Backoff struct {
	policy   Policy
	random   *rand.Rand
	failures int         // in a row, without an uptime of ResetAfter between
	recent   []time.Time // the failures of the last GiveUpWindow
}

// New makes a Backoff. random decides the jitter.
func New(p Policy, random *rand.Rand) *Backoff { return &Backoff{policy: p, random: random} }

// Failed accounts for a failure at now, after so much uptime, and returns how
// long to wait, or that it is time to give up. The first failure is tried again
// at once: what ran and crashed is back before its peers notice. The waits after
// that are uniform between nothing and a bound (full jitter: what failed
// together does not come back together), which doubles from Min to Max and
// stays there.
func (b *Backoff) Failed(now time.Time, uptime time.Duration) (wait time.Duration, giveUp bool) {
	if uptime >= b.policy.ResetAfter {
		b.Reset()
	}
	b.failures++
	kept := b.recent[:0]
	for _, t := range b.recent {
		if now.Sub(t) < b.policy.GiveUpWindow {
			kept = append(kept, t)
		}
	}
	b.recent = append(kept, now)
	if b.policy.GiveUpAfter > 0 && len(b.recent) >= b.policy.GiveUpAfter {
		return 0, true
	}
	if b.failures == 1 {
		return 0, false
	}
	bound := b.policy.Min
	for i := 2; i < b.failures && bound < b.policy.Max; i++ { // no shift: it overflows
		bound *= 2
	}
	bound = min(bound, b.policy.Max)
	return time.Duration(b.random.Int64N(int64(bound)) + 1), false
}

// Reset forgets all failures.
func (b *Backoff) Reset() {
	b.failures = 0
	b.recent = nil
}
