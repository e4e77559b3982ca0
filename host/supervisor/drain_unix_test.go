//go:build unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/internal/backoff"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// patient lets Drain wait for what the test does meanwhile.
func patient(o *Options) { o.DrainTimeout = 30 * time.Second }

func (r *rig) drain() {
	r.t.Helper()
	if err := r.plugin.Drain(r.t.Context()); err != nil {
		r.t.Errorf("Drain: %v", err)
	}
}

// drained reports whether the process that the status is about has been told.
func (r *rig) drained() bool {
	r.plugin.mu.Lock()
	defer r.plugin.mu.Unlock()
	return r.plugin.current != nil && r.plugin.current.drained.Load()
}

func (r *rig) expectStopping(what string, err error) {
	r.t.Helper()
	if !errors.Is(err, transport.ErrStopping) {
		r.t.Errorf("%s: got %v, want ErrStopping", what, err)
	}
}

// expectNoService dials, stops the plugin, and fails if somebody was served.
func (r *rig) expectNoService() {
	r.t.Helper()
	ls := r.plugin.Listeners()
	sock, err := net.Dial("tcp", strings.TrimPrefix(ls.URLs()[0], "ws://"))
	if err != nil {
		r.t.Fatal(err) // the host has bound it
	}
	defer sock.Close()
	r.stop()
	_ = ls.Close()
	_ = sock.SetDeadline(time.Now().Add(30 * time.Second))
	var pid int
	if _, err := fmt.Fscanln(sock, &pid); err == nil {
		r.t.Errorf("process %d serves a peer that came after Drain", pid)
	}
}

// TestADrainGivesUpAReplacement that has not begun to start: the old process
// stays with its peers.
func TestADrainGivesUpAReplacement(t *testing.T) {
	for _, successor := range []string{"hangs before the handshake", "hangs in Describe"} {
		t.Run(successor, func(t *testing.T) {
			t.Parallel()
			r := startListening(t, patient)
			old := r.visit()
			replaced := make(chan error, 1)
			go func() { replaced <- r.plugin.Replace(t.Context(), r.behaving(successor)) }()
			s := r.await("a successor", func(s Status) bool {
				return s.Successor != nil && (s.Successor.PID != 0 || successor == "hangs before the handshake")
			})
			r.drain()
			r.expectStopping("Replace", <-replaced)
			r.expectStopping("Restart during the drain", r.plugin.Restart(t.Context()))
			if pid := s.Successor.PID; pid != 0 && !gone(pid) {
				t.Errorf("the successor %d is still there", pid)
			}
			s = r.plugin.Status()
			if s.State != Ready || s.PID != old.pid || s.Successor != nil || s.Remedy != "" || len(s.Retiring) > 0 {
				t.Errorf("status %+v, want the old process", s)
			}
			if !r.drained() {
				t.Error("the old process was not told")
			}
			old.talk()
			r.expectNoService()
		})
	}
}

// TestADrainReachesASuccessorThatStarts: it may have peers already, so it becomes
// the process of the plugin, and accepts no more.
func TestADrainReachesASuccessorThatStarts(t *testing.T) {
	starts := make(chan struct{})
	r := startListening(t, func(o *Options) {
		patient(o)
		o.HostCalls = func(_ Spec, n int, report func(transport.Status)) rpc.HostCalls {
			return hostCalls{report: func(s transport.Status) {
				if report(s); n == 2 {
					close(starts)
				}
			}}
		}
	})
	old := r.visit()
	open := filepath.Join(t.TempDir(), "open")
	replaced, drained := make(chan error, 1), make(chan error, 1)
	go func() {
		replaced <- r.plugin.Replace(t.Context(), r.behaving("listens once its gate is open", gate, open))
	}()
	<-starts
	go func() { drained <- r.plugin.Drain(t.Context()) }()
	<-r.plugin.draining
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-replaced; err != nil {
		t.Errorf("Replace: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if s := r.plugin.Status(); s.State != Ready || s.Incarnation != 2 || len(s.Retiring) != 1 || s.Retiring[0].PID != old.pid {
		t.Errorf("status %+v, want the successor, and the old process with its peer", s)
	}
	if !r.drained() {
		t.Error("the successor was not told")
	}
	old.talk()
	r.expectNoService()
}

// TestAProcessIsLostDuringTheDrain, or before it: it gets a successor only for
// connections that wait for one, and that accepts nothing.
func TestAProcessIsLostDuringTheDrain(t *testing.T) {
	waiting := []transport.Resume{{Conn: 1, Key: "k"}}
	for _, tt := range []struct {
		name    string
		before  bool // the drain
		waiting []transport.Resume
	}{
		{"nobody waits", false, nil},
		{"nobody waits, it backs off", true, nil},
		{"somebody waits", false, waiting},
		{"somebody waits, it backs off", true, waiting},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := startListening(t, func(o *Options) {
				patient(o)
				if tt.before {
					o.Restart = backoff.Policy{Min: time.Hour, Max: time.Hour, ResetAfter: time.Minute, GiveUpAfter: 3, GiveUpWindow: time.Minute}
				}
			})
			r.sessions.wait(tt.waiting)
			lose := func() int {
				t.Helper()
				s := r.plugin.Status()
				if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				return s.Incarnation
			}
			var last int
			if tt.before {
				first := lose() // for which there is no pause
				r.await("ready again", func(s Status) bool { return s.State == Ready && s.Incarnation > first })
				last = lose()
				r.await("backing off", func(s Status) bool { return s.State == BackingOff && s.Incarnation == last })
				r.drain()
			} else {
				r.drain()
				last = lose()
			}
			if tt.waiting != nil {
				r.await("delivering", func(s Status) bool { return s.State == Ready && s.Incarnation == last+1 && r.drained() })
			} else {
				r.await("resting", func(s Status) bool { return s.State == Stopping && s.PID == 0 && s.Incarnation == last })
			}
			if s := r.plugin.Status(); !strings.Contains(s.Cause, "killed by signal 9") || s.NextAttempt != nil && tt.waiting == nil {
				t.Errorf("status %+v, want the cause, and no attempt to come", s)
			}
			r.expectStopping("Restart", r.plugin.Restart(t.Context()))
			r.expectNoService()
		})
	}
}

// TestADrainAtTheStart: what has not been started is not.
func TestADrainAtTheStart(t *testing.T) {
	r := start(t, "hangs in Describe", func(_ *Spec, o *Options) { patient(o) })
	s := r.await("launched", func(s Status) bool { return s.PID != 0 })
	r.drain()
	r.await("resting", func(s Status) bool { return s.State == Stopping && s.PID == 0 })
	if !gone(s.PID) {
		t.Errorf("process %d is still there", s.PID)
	}
	if err := r.plugin.Leave(t.Context()); err != nil {
		t.Errorf("Leave: %v", err)
	}
}

// TestADrainOfAPluginThatSleeps: it is not woken up any more.
func TestADrainOfAPluginThatSleeps(t *testing.T) {
	r := start(t, "healthy", func(s *Spec, _ *Options) { s.Disabled = true })
	r.drain()
	r.expectStopping("SetEnabled", r.plugin.SetEnabled(t.Context(), true))
	if s := r.plugin.Status(); s.Incarnation != 0 {
		t.Errorf("status %+v, want no process", s)
	}
}

// TestADrainThatIsInterrupted has begun all the same.
func TestADrainThatIsInterrupted(t *testing.T) {
	r := start(t, "hangs in Drain", nil)
	r.await("ready", isReady)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.plugin.Drain(ctx); err == nil {
		t.Error("Drain has an answer")
	}
	r.expectStopping("Restart", r.plugin.Restart(t.Context()))
}
