//go:build unix

package supervisor

import (
	"testing"
	"time"
)

// TestARetiringProcessThatDoesNotDrain does not keep its place for the time that
// one with connections gets.
func TestARetiringProcessThatDoesNotDrain(t *testing.T) {
	for behaviour, change := range map[string]func(*Options){
		"stops in Drain": func(o *Options) { // it is found to hang
			o.DrainTimeout, o.ProbeInterval, o.ProbeTimeout = time.Hour, 100*time.Millisecond, 2*time.Second
		},
		"never ends its Drain": func(o *Options) { o.DrainTimeout = 100 * time.Millisecond },
	} {
		t.Run(behaviour, func(t *testing.T) {
			r := startListeningAs(t, behaviour, func(o *Options) {
				o.RetireTimeout = time.Hour
				change(o)
			})
			old := r.plugin.Status().PID
			if err := r.plugin.Replace(t.Context(), r.behaving("listens")); err != nil {
				t.Fatal(err)
			}
			r.awaitRetired(old)
		})
	}
}

// TestLeaveIsTheEndOfTheName: when it is answered another plugin may have the
// name, and nothing is abandoned under it any more.
func TestLeaveIsTheEndOfTheName(t *testing.T) {
	for name, test := range map[string]struct {
		behaviour string
		disabled  bool
		in        State
		before    int // what was abandoned because it has failed
	}{
		"it serves":  {"healthy", false, Ready, 0},
		"it sleeps":  {"healthy", true, Disabled, 0},
		"it gave up": {"refuses its config", false, Failed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, test.behaviour, func(s *Spec, _ *Options) { s.Disabled = test.disabled })
			r.await(string(test.in), func(s Status) bool { return s.State == test.in })
			if err := r.plugin.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := r.sessions.abandoned(); n != test.before+1 {
				t.Errorf("when Leave is answered %d were abandoned, want %d", n, test.before+1)
			}
			<-r.plugin.ended
			if n := r.sessions.abandoned(); n != test.before+1 {
				t.Errorf("after the end %d were abandoned, want %d", n, test.before+1)
			}
			if s := r.plugin.Status(); s.State != Stopped || s.PID != 0 {
				t.Errorf("status %+v, want stopped", s)
			}
		})
	}
}

// TestSwitchingOnWhatWasRevivedMeanwhile: the wish comes to a process that has
// started with it.
func TestSwitchingOnWhatWasRevivedMeanwhile(t *testing.T) {
	r := start(t, "healthy", nil)
	before := r.await("ready", isReady)
	if err := r.plugin.ask(t.Context(), restartRequest{enable: true}); err != nil {
		t.Fatal(err)
	}
	if s := r.plugin.Status(); s.State != Ready || s.PID != before.PID || s.Incarnation != 1 || s.Successor != nil {
		t.Errorf("status %+v, want the process of before", s)
	}
}
