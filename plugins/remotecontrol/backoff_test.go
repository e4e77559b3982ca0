package remotecontrol

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestBackoffStaysInBounds has the place of next_reconnect_delay_resets_after_cap:
// our delay does not start again from nothing at its cap, it stays there.
func TestBackoffStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := backoff{random: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
		for i := range rapid.IntRange(1, 3000).Draw(t, "failures") {
			got := b.next()
			low, high := backoffCap/2, backoffCap
			if i < 9 {
				base := backoffBase << max(i-1, 0)
				low, high = base*9/10-time.Millisecond, base*11/10
			}
			if got < low || got > high {
				t.Fatalf("failure %d: delay %v, want %v to %v", i, got, low, high)
			}
			if got < attemptSpacing || got > backoffCap {
				t.Fatalf("failure %d: delay %v, want %v to %v whatever happened", i, got, attemptSpacing, backoffCap)
			}
		}
	})
}

func TestBackoffFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := backoff{random: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))}
		floor := time.Duration(rapid.Int64Range(1, int64(maxRetryAfter)).Draw(t, "floor"))
		if got := b.above(floor); got < floor || got > floor+floor/10+time.Second {
			t.Fatalf("above %v: %v", floor, got)
		}
		if got := b.afterSettled(); got < 0 || got > atOnce {
			t.Fatalf("after a settled link: %v", got)
		}
	})
}
