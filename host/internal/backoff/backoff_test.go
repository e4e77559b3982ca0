package backoff

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func seeded(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
}

// policies draws valid policies, the extreme ones too.
func policies(t *rapid.T) Policy {
	p := Policy{
		Min:         time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "min")),
		ResetAfter:  time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "reset after")),
		GiveUpAfter: rapid.IntRange(0, 8).Draw(t, "give up after"),
	}
	p.Max = time.Duration(rapid.Int64Range(int64(p.Min), math.MaxInt64).Draw(t, "max"))
	p.GiveUpWindow = time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "window"))
	if err := p.Validate(); err != nil {
		t.Fatalf("the policy %+v is drawn wrong: %v", p, err)
	}
	return p
}

// A model is the policy as design §5 words it, in numbers that do not overflow.
type model struct {
	p        Policy
	failures int64
	times    []time.Time
}

func (m *model) failed(now time.Time, uptime time.Duration) (floor, bound time.Duration, giveUp bool) {
	if uptime >= m.p.ResetAfter {
		m.failures, m.times = 0, nil
	}
	m.failures++
	m.times = append(m.times, now)
	within := 0
	for _, t := range m.times {
		if now.Sub(t) < m.p.GiveUpWindow {
			within++
		}
	}
	if m.p.GiveUpAfter > 0 && within >= m.p.GiveUpAfter {
		return 0, 0, true
	}
	if m.failures == 1 {
		return 0, 0, false
	}
	doubled := new(big.Int).Lsh(big.NewInt(int64(m.p.Min)), uint(m.failures-2))
	if doubled.Cmp(big.NewInt(int64(m.p.Max))) > 0 {
		doubled.SetInt64(int64(m.p.Max))
	}
	return max(m.p.Min/10, 1), time.Duration(doubled.Int64()), false
}

// TestTheModel: any policy, any times between the failures, any uptime.
func TestTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policies(t)
		b, m := New(p, seeded(t)), &model{p: p}
		now := time.Unix(0, 0)
		for i := range rapid.IntRange(1, 200).Draw(t, "failures") {
			// Short and long against both the window and the uptime that resets.
			edge := rapid.SampledFrom([]time.Duration{0, p.Min, p.GiveUpWindow / time.Duration(max(p.GiveUpAfter, 1)), p.GiveUpWindow}).Draw(t, "edge")
			gap := max(edge+time.Duration(rapid.IntRange(-2, 2).Draw(t, "off by")), 0)
			uptime := rapid.SampledFrom([]time.Duration{0, time.Second, p.ResetAfter - 1, p.ResetAfter}).Draw(t, "uptime")
			now = now.Add(gap)
			wait, giveUp := b.Failed(now, uptime)
			floor, bound, want := m.failed(now, uptime)
			if giveUp != want || wait < floor || wait > bound {
				t.Fatalf("failure %d with %+v: wait %v, give up %v; want %v to %v, %v", i+1, p, wait, giveUp, floor, bound, want)
			}
			if wait == 0 && m.failures != 1 && !giveUp {
				t.Fatalf("failure %d is tried again at once, without an uptime of %v before it", i+1, p.ResetAfter)
			}
			now = now.Add(min(wait, time.Hour))
			if n := len(b.recent); n > p.GiveUpAfter {
				t.Fatalf("%d failures are remembered, want at most %d", n, p.GiveUpAfter)
			}
		}
	})
}

// TestTheCapIsHeldForEver is for the bugs of others: Nomad's wait overflows at
// the 17th failure, the reference's falls to zero at its cap.
func TestTheCapIsHeldForEver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Default()
		p.GiveUpAfter = 0
		b := New(p, seeded(t))
		b.failures = rapid.OneOf(rapid.IntRange(8, 100), rapid.Just(1_000_000_000)).Draw(t, "failures before")
		now := time.Unix(0, 0)
		least, most, sum := p.Max, time.Duration(0), time.Duration(0)
		const n = 1000
		for range n {
			wait, giveUp := b.Failed(now, 59900*time.Millisecond)
			if floor := p.Min / 10; giveUp || wait < floor || wait > p.Max {
				t.Fatalf("after %d failures: wait %v, give up %v; want %v to %v", b.failures, wait, giveUp, floor, p.Max)
			}
			now = now.Add(wait)
			least, most, sum = min(least, wait), max(most, wait), sum+wait
		}
		// Of 1000 draws from 30 s, none in a tenth at either end has a chance of
		// 10^-45; the mean has a deviation of 0.3 s.
		if least > p.Max/10 || most < p.Max*9/10 {
			t.Fatalf("the waits are between %v and %v, want the whole range up to %v", least, most, p.Max)
		}
		if mean := sum / n; mean < 12*time.Second || mean > 18*time.Second {
			t.Fatalf("the waits are %v in the mean, want about half of %v", mean, p.Max)
		}
	})
}

// TestASecondOfLifeIsNoHealth: what becomes ready and dies a second later, for
// ever, is neither tried in a hot loop nor treated as if it were well.
func TestASecondOfLifeIsNoHealth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		uptime := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "uptime"))
		p := Default()
		p.GiveUpAfter = 0
		b := New(p, seeded(t))
		begin := time.Unix(0, 0)
		starts := 0
		for now := begin; now.Sub(begin) < time.Hour; starts++ {
			now = now.Add(uptime)
			wait, _ := b.Failed(now, uptime)
			if wait == 0 && starts > 0 {
				t.Fatalf("start %d follows at once", starts+1)
			}
			now = now.Add(wait)
		}
		// 3600 s / 15 s, and the short waits before the cap; the reference tries
		// 449 times.
		if starts > 330 {
			t.Errorf("%d starts in an hour", starts)
		}

		// With the default policy it is given up, at its fifth death.
		b = New(Default(), seeded(t))
		now := begin
		for n := 1; ; n++ {
			now = now.Add(uptime)
			wait, giveUp := b.Failed(now, uptime)
			if giveUp != (n >= 5) {
				t.Fatalf("given up after death %d: %v", n, giveUp)
			}
			if giveUp {
				return
			}
			now = now.Add(wait)
		}
	})
}

func TestOnlyUptimeResets(t *testing.T) {
	p := Default()
	p.GiveUpAfter = 0
	for _, tt := range []struct {
		uptime time.Duration
		resets bool
	}{
		{59900 * time.Millisecond, false}, {time.Minute - 1, false}, {time.Minute, true}, {time.Hour, true},
	} {
		b := New(p, rand.New(rand.NewPCG(1, 1)))
		now := time.Unix(0, 0)
		for range 20 {
			b.Failed(now, 0)
		}
		wait, _ := b.Failed(now, tt.uptime)
		if reset := wait == 0; reset != tt.resets {
			t.Errorf("after an uptime of %v the wait is %v, want a reset: %v", tt.uptime, wait, tt.resets)
		}
		// A reset is a beginning: the doubling starts anew.
		if wait, _ := b.Failed(now, 0); tt.resets && (wait == 0 || wait > p.Min) {
			t.Errorf("the second failure after a reset waits %v, want at most %v", wait, p.Min)
		}
	}
}

// TestTheWindowSlides: five failures within less than ten minutes, wherever
// those begin.
func TestTheWindowSlides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Default()
		b := New(p, seeded(t))
		now := time.Unix(0, 0)
		// Far apart: never.
		for i := range rapid.IntRange(0, 50).Draw(t, "earlier failures") {
			if _, giveUp := b.Failed(now, 0); giveUp {
				t.Fatalf("gave up at failure %d, one every ten minutes", i+1)
			}
			now = now.Add(p.GiveUpWindow)
		}
		first := now
		for range 4 {
			if _, giveUp := b.Failed(now, 0); giveUp {
				t.Fatal("gave up before the fifth")
			}
			left := first.Add(p.GiveUpWindow - 1).Sub(now)
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(left)).Draw(t, "gap")))
		}
		off := time.Duration(rapid.SampledFrom([]int64{-1, 0, 1}).Draw(t, "off by"))
		now = first.Add(p.GiveUpWindow + off)
		if _, giveUp := b.Failed(now, 0); giveUp != (off < 0) {
			t.Fatalf("the fifth failure %v after the first: gave up is %v", now.Sub(first), giveUp)
		}
	})
}

// TestClocksJump: without a monotonic reading, the times that come may be any.
// Whatever they are, the waits stay what they are.
func TestClocksJump(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := New(Default(), seeded(t))
		for i := range 100 {
			now := time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "now"), 0)
			uptime := time.Duration(rapid.Int64().Draw(t, "uptime"))
			wait, giveUp := b.Failed(now, uptime)
			if wait < 0 || wait > 30*time.Second || giveUp && wait != 0 {
				t.Fatalf("failure %d: wait %v, give up %v", i+1, wait, giveUp)
			}
			if wait == 0 && !giveUp && uptime < time.Minute && i > 0 {
				t.Fatalf("failure %d after an uptime of %v is tried again at once", i+1, uptime)
			}
		}
	})
}

func TestValidate(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for _, tt := range []struct {
		change func(*Policy)
		want   string
	}{
		{func(p *Policy) { p.Min = 0 }, "Min is 0s"},
		{func(p *Policy) { p.Min = -1 }, "Min is -1ns"},
		{func(p *Policy) { p.Max = p.Min - 1 }, "Max is 249.999999ms, want at least Min, 250ms"},
		{func(p *Policy) { p.ResetAfter = 0 }, "ResetAfter is 0s"},
		{func(p *Policy) { p.GiveUpAfter = -1 }, "GiveUpAfter is -1"},
		{func(p *Policy) { p.GiveUpWindow = 0 }, "GiveUpWindow is 0s"},
	} {
		p := Default()
		tt.change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", p, err, tt.want)
		}
	}
	p := Default()
	p.GiveUpAfter, p.GiveUpWindow = 0, 0 // never
	if err := p.Validate(); err != nil {
		t.Errorf("never giving up: %v", err)
	}
}
