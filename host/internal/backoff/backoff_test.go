package backoff

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWaitStaysInBounds is for the bugs of others: Nomad's wait overflows at
// the 17th failure, the reference's falls to zero at its cap.
func TestWaitStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Default()
		p.GiveUpAfter = 0
		b := New(p, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)))
		now := time.Unix(0, 0)
		var late, n time.Duration // the sum of the waits behind the tenth, and their number
		for i := range rapid.IntRange(500, 2000).Draw(t, "failures") {
			wait, giveUp := b.Failed(now, 0)
			switch {
			case giveUp:
				t.Fatalf("gave up at failure %d without a limit", i+1)
			case i == 0 && wait != 0:
				t.Fatalf("the first wait is %v, want none", wait)
			case i > 0 && (wait <= 0 || wait > p.Max):
				t.Fatalf("wait %v after failure %d, want more than 0 and at most %v", wait, i+1, p.Max)
			case i > 10:
				late += wait
				n++
			}
			now = now.Add(wait)
		}
		if mean := late / n; mean < p.Max/3 || mean > p.Max*2/3 {
			t.Fatalf("the waits at the cap are %v in the mean, want about %v: it is not held", mean, p.Max/2)
		}
	})
}

func TestUptimeResets(t *testing.T) {
	b := New(Default(), rand.New(rand.NewPCG(1, 1)))
	now := time.Unix(0, 0)
	for range 3 {
		b.Failed(now, 0)
	}
	if wait, _ := b.Failed(now, 59*time.Second); wait == 0 {
		t.Error("59 s of uptime reset the wait, want 60 s")
	}
	if wait, giveUp := b.Failed(now, time.Minute); wait != 0 || giveUp {
		t.Errorf("after 60 s of uptime: wait %v, give up %v", wait, giveUp)
	}
}

func TestGivesUpInsideTheWindowOnly(t *testing.T) {
	for _, tt := range []struct {
		name  string
		every time.Duration
		want  bool
	}{
		{"five at once", 0, true},
		{"five in just under ten minutes", 149 * time.Second, true},
		{"one every three minutes", 3 * time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := New(Default(), rand.New(rand.NewPCG(1, 1)))
			now := time.Unix(0, 0)
			var gaveUp bool
			for range 5 {
				_, g := b.Failed(now, 0)
				gaveUp = gaveUp || g
				now = now.Add(tt.every)
			}
			if gaveUp != tt.want {
				t.Errorf("gave up: %v, want %v", gaveUp, tt.want)
			}
		})
	}
}
