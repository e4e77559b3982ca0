// Package backoff decides how long to wait before something that failed is
// tried again, and when to give up.
package backoff

import (
	"errors"
	"fmt"
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

// Validate returns all complaints about p, as one error.
func (p Policy) Validate() error {
	var errs []error
	if p.Min <= 0 {
		errs = append(errs, fmt.Errorf("the Min is %v, want more than 0: without it what fails at once fails without a pause", p.Min))
	}
	if p.Max < p.Min {
		errs = append(errs, fmt.Errorf("the Max is %v, want at least Min, %v", p.Max, p.Min))
	}
	if p.ResetAfter <= 0 {
		errs = append(errs, fmt.Errorf("the ResetAfter is %v, want more than 0: no uptime at all would forget every failure", p.ResetAfter))
	}
	if p.GiveUpAfter < 0 {
		errs = append(errs, fmt.Errorf("the GiveUpAfter is %d, want 0 or more", p.GiveUpAfter))
	}
	if p.GiveUpAfter > 0 && p.GiveUpWindow <= 0 {
		errs = append(errs, fmt.Errorf("the GiveUpWindow is %v, want more than 0", p.GiveUpWindow))
	}
	return errors.Join(errs...)
}

// floorPart is the part of Min that every wait but the first has at least: a
// random wait may be none, and several of those in a row are a hot loop.
const floorPart = 10

// A Backoff counts failures. It does no locking.
type Backoff struct {
	policy   Policy
	random   *rand.Rand
	failures int         // in a row, without an uptime of ResetAfter between
	recent   []time.Time // the failures of the last GiveUpWindow, at most GiveUpAfter
}

// New makes a Backoff. random decides the jitter.
func New(p Policy, random *rand.Rand) *Backoff { return &Backoff{policy: p, random: random} }

// Failed accounts for a failure at now, after so much uptime, and returns how
// long to wait, or that it is time to give up. The first failure is tried again
// at once: what ran and crashed is back before its peers notice. The waits after
// that are uniform between a tenth of Min and a bound (full jitter: what failed
// together does not come back together), which doubles from Min to Max and
// stays there.
func (b *Backoff) Failed(now time.Time, uptime time.Duration) (wait time.Duration, giveUp bool) {
	if uptime >= b.policy.ResetAfter {
		b.Reset()
	}
	b.failures++
	if b.policy.GiveUpAfter > 0 && b.remember(now) >= b.policy.GiveUpAfter {
		return 0, true
	}
	if b.failures == 1 {
		return 0, false
	}
	bound := b.policy.Min
	for i := 2; i < b.failures && bound < b.policy.Max; i++ {
		if bound > b.policy.Max/2 { // doubled, it might overflow
			bound = b.policy.Max
			break
		}
		bound *= 2
	}
	floor := max(b.policy.Min/floorPart, 1)
	return floor + time.Duration(b.random.Int64N(int64(bound-floor)+1)), false
}

// remember adds a failure at now and returns how many there were within the
// window that ends there.
func (b *Backoff) remember(now time.Time) int {
	kept := b.recent[:0]
	for _, t := range b.recent {
		if now.Sub(t) < b.policy.GiveUpWindow {
			kept = append(kept, t)
		}
	}
	if extra := len(kept) - b.policy.GiveUpAfter + 1; extra > 0 {
		kept = kept[:copy(kept, kept[extra:])] // a caller that goes on after giving up
	}
	b.recent = append(kept, now)
	return len(b.recent)
}

// Reset forgets all failures.
func (b *Backoff) Reset() {
	b.failures = 0
	b.recent = nil
}
