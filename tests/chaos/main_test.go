//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/transporthost/transporthost/tests/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestChaosRefusesWrongUse(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown flag", []string{"-forever"}, 2, "-forever"},
		{"no time", []string{"-for", "0s"}, 2, "want times above 0"},
		{"no such action", []string{"-only", "^earthquake$"}, 2, "-list shows them"},
		{"bad pattern", []string{"-only", "("}, 2, "regexp"},
		{"no host", []string{"-host", "/nonexistent/host", "-seed", "7"}, 1, "chaos: seed 7: 1 failures:\n  installing a plugin (is it built? go run ./tools/dev build)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, words bytes.Buffer
			code := run(t.Context(), tt.args, strings.NewReader(""), &out, &words)
			if code != tt.code || !strings.Contains(words.String(), tt.want) {
				t.Errorf("got status %d and %q, want %d and %q", code, words.String(), tt.code, tt.want)
			}
		})
	}
}

func TestActionsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range allActions() {
		if seen[a.name] || a.weight < 1 || a.do == nil {
			t.Errorf("%q: there twice %v, weight %d", a.name, seen[a.name], a.weight)
		}
		if len(a.touches) > 0 && !slices.Contains(a.touches, a.on) {
			t.Errorf("%q is done to %s, and touches %v only", a.name, a.on, a.touches)
		}
		seen[a.name] = true
	}
	var out bytes.Buffer
	if code := run(t.Context(), []string{"-list"}, strings.NewReader(""), &out, io.Discard); code != 0 || strings.Count(out.String(), "\n") != len(seen) {
		t.Errorf("-list ends with %d and prints\n%s\nwant %d names", code, out.String(), len(seen))
	}
}

// TestMonkeyIsItsSeed: the same seed draws the same, another one something else;
// what is under way or just began is left alone; and everything comes in time.
func TestMonkeyIsItsSeed(t *testing.T) {
	draw := func(seed uint64) string {
		m := newMonkey(nil, allActions(), seed)
		var names []string
		for range 200 {
			a, ok := m.choose(time.Now())
			if !ok {
				t.Fatal("nothing is possible")
			}
			names = append(names, a.name)
			delete(m.held, a.on)
		}
		for _, a := range allActions() {
			if !slices.Contains(names, a.name) {
				t.Errorf("seed %d: %q does not come in %d draws", seed, a.name, len(names))
			}
		}
		return strings.Join(names, ", ")
	}
	if one, again, other := draw(1), draw(1), draw(2); one != again || one == other {
		t.Errorf("seed 1: %s\nagain: %s\nseed 2: %s", one, again, other)
	}
	m := newMonkey(nil, allActions(), 1)
	for _, p := range append(transports[:], application) {
		m.born[p] = time.Now()
	}
	m.held[remotecontrol] = true
	for range 200 {
		a, ok := m.choose(time.Now())
		if !ok || a.replaces || a.on == remotecontrol {
			t.Fatalf("%q is drawn, though %s is held, or was just touched", a.name, a.on)
		}
		delete(m.held, a.on)
	}
}

// TestReportFailsBeyondEachAim: every number that has an aim can miss it.
func TestReportFailsBeyondEachAim(t *testing.T) {
	began := time.Now().Add(-10 * time.Minute)
	well := func() (report, *record) {
		r := newRecord(func(error) {})
		for _, name := range []row{row(stdio), row(websocket), row(remotecontrol), connecting} {
			r.calm[name], r.chaos[name] = steady(time.Millisecond), steady(2*time.Millisecond)
		}
		r.recovered(killName+string(stdio), 100*time.Millisecond)
		p := report{began: began, before: holding{goroutines: 5}, after: holding{goroutines: 5}}
		for at := began; at.Before(began.Add(5 * time.Minute)); at = at.Add(time.Second) {
			p.history = append(p.history, usage{at: at, resident: 100 << 20})
		}
		return p, r
	}
	for _, tt := range []struct {
		name   string
		change func(p *report, r *record)
		want   string
	}{
		{"nothing", func(*report, *record) {}, ""},
		{"p99", func(_ *report, r *record) { r.chaos[row(websocket)] = steady(4 * time.Millisecond) }, "p99, websocket untouched"},
		{"recovery", func(_ *report, r *record) {
			r.recovered(killName+string(stdio), time.Second)
			r.recovered(killName+string(stdio), time.Second)
		}, "recovery, kill -9 stdio"},
		{"recovery after a hang", func(_ *report, r *record) {
			for range fewestRecoveries {
				r.recovered(hangName+string(stdio), time.Minute)
			}
		}, "recovery, SIGSTOP for ever stdio"},
		{"goroutines", func(p *report, _ *record) { p.after.goroutines++ }, "goroutines of the host"},
		{"files", func(p *report, _ *record) { p.after.files++ }, "open files of the host"},
		{"processes", func(p *report, _ *record) { p.after.processes++ }, "processes below it"},
		{"sockets", func(p *report, _ *record) { p.after.sockets++ }, "files in its runtime directory"},
		{"memory", func(p *report, _ *record) {
			for i := range p.history[len(p.history)/2:] {
				p.history[len(p.history)/2+i].resident = 111 << 20
			}
		}, "memory of the host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, r := well()
			tt.change(&p, r)
			got := strings.Join(p.print(io.Discard, r), "\n")
			if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
				t.Errorf("got %q, want only %q", got, tt.want)
			}
		})
	}
	if _, known := growth([]usage{{at: began, resident: 1}, {at: began.Add(time.Minute), resident: 1}}, began); known {
		t.Error("the growth of a run of a minute is known")
	}
}

// steady is a histogram whose p99 is d.
func steady(d time.Duration) *load.Histogram {
	h := &load.Histogram{}
	for range fewest {
		h.Record(d)
	}
	return h
}

// TestOnlyQuietStretchesCount: what was measured while something else used the
// machine, or right behind that, is left out.
func TestOnlyQuietStretchesCount(t *testing.T) {
	r := newRecord(func(error) {})
	for _, quiet := range []bool{true, false, true, true} {
		r.answered(connecting, websocket, time.Now())
		r.closeWindow(time.Second, quiet)
	}
	if got := r.calm[connecting].Count(); got != 2 || r.noisy != 2*time.Second || r.whole != 4*time.Second {
		t.Errorf("%d of 4 count, %v of %v is noisy; want the first and the last", got, r.noisy, r.whole)
	}
}

// TestReadCPUKnowsOurOwn: what this process burns is ours.
func TestReadCPUKnowsOurOwn(t *testing.T) {
	before, err := readCPU()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		now, err := readCPU() // burns something itself
		if err != nil {
			t.Fatal(err)
		}
		if ours, machine := now.ours-before.ours, now.machine-before.machine; ours >= 5*tickLength && machine >= ours-2*tickLength {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("from %+v to %+v; want that both grow", before, now)
		}
	}
}

func TestHoldingBeyond(t *testing.T) {
	before := holding{goroutines: 5, files: 5, processes: 5, sockets: 5, temporary: 5, plugins: map[part]int{stdio: 5}}
	more := holding{goroutines: 6, files: 6, processes: 6, sockets: 6, temporary: 6, plugins: map[part]int{stdio: 6}}
	if got := more.beyond(before); len(got) != 6 {
		t.Errorf("one more of each of 6: got %q", got)
	}
	if got := before.beyond(more); len(got) != 0 {
		t.Errorf("less of each: got %q", got)
	}
}

// TestPaceKeepsTime: what is due is due at fixed times, however long a call
// takes.
func TestPaceKeepsTime(t *testing.T) {
	const rate = 1000.0
	var dues []time.Time
	var g gate
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pace(ctx, rate, &g, func(n int, due time.Time) {
		if dues = append(dues, due); n == 20 {
			cancel()
		}
	})
	for i := 1; i < len(dues); i++ {
		if gap := dues[i].Sub(dues[i-1]); math.Abs(float64(gap-time.Millisecond)) > 1 {
			t.Errorf("%d is due %v behind the one before, want 1ms", i, gap)
		}
	}
	if len(dues) != 21 {
		t.Errorf("%d were due, want 21", len(dues))
	}
}

func TestExposure(t *testing.T) {
	e := newExposure()
	began := time.Now()
	if e.disturbed(stdio, began) {
		t.Error("disturbed by nobody")
	}
	release := e.touch(stdio)
	if !e.touched(stdio, time.Now()) || e.touched(websocket, began) {
		t.Error("stdio, and only that, is touched now")
	}
	release()
	if !e.disturbed(stdio, began) {
		t.Error("what began before the end of a touch is disturbed")
	}
	if e.disturbed(stdio, time.Now().Add(time.Nanosecond)) {
		t.Error("what begins behind it is not")
	}
	e.touch(application)
	if !e.disturbed(websocket, time.Now()) {
		t.Error("who touches the application disturbs everybody")
	}
}

func TestProcessIsAliveUntilItIsNot(t *testing.T) {
	fields := statOf(os.Getpid())
	self := process{os.Getpid(), fields[19]}
	if !self.alive() || !strings.Contains(self.String(), fmt.Sprint(os.Getpid())) {
		t.Errorf("%v is not alive", self)
	}
	if (process{self.pid, "0"}).alive() {
		t.Error("another process with this pid is alive")
	}
}
