//go:build linux

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	served "github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/router"
)

// wellStatus is the status of a host in which nothing is wrong.
func wellStatus() (host.Status, *knowledge) {
	k := &knowledge{plugins: map[part]fact{}}
	s := host.Status{State: host.StateServing, Application: served.Status{Ready: true, Children: 1}}
	for i, t := range transports {
		p := host.TransportStatus{Instance: string(t), State: "ready", PID: os.Getpid() + i, Incarnation: 2, Restarts: 1, Cause: killedCause}
		s.Plugins = append(s.Plugins, p)
		k.settle(t, p)
	}
	return s, k
}

// TestDisagreements: each thing that a status can say wrongly is found.
func TestDisagreements(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(s *host.Status, k *knowledge)
		want   string // "" for nothing
	}{
		{"nothing", func(*host.Status, *knowledge) {}, ""},
		{"pid", func(s *host.Status, _ *knowledge) { s.Plugins[0].PID++ }, "transport stdio: pid is"},
		{"incarnation", func(s *host.Status, _ *knowledge) { s.Plugins[1].Incarnation++ }, "transport websocket: incarnation is 3, want 2"},
		{"restarts", func(s *host.Status, _ *knowledge) { s.Plugins[1].Restarts = 0 }, "restarts is 0, want 1"},
		{"state", func(s *host.Status, _ *knowledge) { s.Plugins[2].State = "failed" }, `state is "failed"`},
		{"cause", func(s *host.Status, _ *knowledge) { s.Plugins[2].Cause = "" }, `cause is ""`},
		{"addresses", func(s *host.Status, _ *knowledge) { s.Plugins[1].Addresses = []string{"ws://x"} }, "addresses is [ws://x]"},
		{"the host itself", func(s *host.Status, _ *knowledge) { s.State = host.StateDraining }, `the host is "draining"`},
		{"a transport too few", func(s *host.Status, _ *knowledge) { s.Plugins = s.Plugins[:2] }, "there are 2 transports"},
		{"no application", func(s *host.Status, _ *knowledge) { s.Application.Ready = false }, "the application is ready: false"},
		{"two applications", func(s *host.Status, _ *knowledge) { s.Application.Children = 2 }, "with 2 processes"},
		{"a restart of it that is not counted", func(_ *host.Status, k *knowledge) { k.appMoves(false, 1) }, "and 0 restarts, want one process and 1"},
		{"a cause of it that does not name the signal", func(s *host.Status, k *knowledge) {
			k.appMoves(false, 1)
			s.Application.Restarts, s.Application.Cause = 1, "ended"
		}, `cause is "ended", want one that names SIGKILL`},
		{"a violation", func(s *host.Status, _ *knowledge) { s.Counters = router.Counters{Violations: 1} }, "1 violations"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, k := wellStatus()
			tt.change(&s, k)
			plugins, app := k.snapshot()
			got := strings.Join(disagreements(s, plugins, plugins, app, app), "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	s, k := wellStatus()
	before, app := k.snapshot()
	s.Plugins[0].PID++
	k.settle(stdio, s.Plugins[0])
	after, _ := k.snapshot()
	if got := disagreements(s, before, after, app, app); len(got) > 0 {
		t.Errorf("what changed while it was asked: got %q, want nothing", got)
	}
}

// TestTransition: while a process is replaced, the status may say what was, what
// is under way and what will be, and nothing else.
func TestTransition(t *testing.T) {
	before := host.TransportStatus{State: "ready", PID: 10, Incarnation: 1}
	next := func(change func(*host.TransportStatus)) host.TransportStatus {
		s := host.TransportStatus{State: "ready", PID: os.Getpid(), Incarnation: 2, Restarts: 1, Cause: killedCause}
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name string
		s    host.TransportStatus
		want string
	}{
		{"not noticed", before, ""},
		{"noticed", host.TransportStatus{State: "backing-off", Incarnation: 1, Cause: killedCause}, ""},
		{"noticed without its cause", host.TransportStatus{State: "backing-off", Incarnation: 1, Cause: "exited"}, `its cause is "exited"`},
		{"failed", host.TransportStatus{State: "failed", Incarnation: 1, Cause: killedCause}, `state is "failed"`},
		{"starting", next(func(s *host.TransportStatus) { s.State, s.PID = "starting", 0 }), ""},
		{"there", next(func(*host.TransportStatus) {}), ""},
		{"with the old pid", next(func(s *host.TransportStatus) { s.PID = 10 }), "has the pid 10 of the one before"},
		{"twice", next(func(s *host.TransportStatus) { s.Incarnation, s.Restarts = 3, 2 }), "at most 1 more than 0"},
		{"not counted", next(func(s *host.TransportStatus) { s.Restarts = 0 }), "0 restarts, incarnation 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := replacing(stdio, before, 1, killedCause).check(tt.s); err != nil {
				got = err.Error()
			}
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	gone := next(func(s *host.TransportStatus) { s.PID = 1 << 30 })
	if err := replacing(stdio, before, 1, killedCause).arrived(gone); err == nil || !strings.Contains(err.Error(), "where no process runs") {
		t.Errorf("a pid of nobody: %v", err)
	}
	if err := replacing(stdio, before, 1, killedCause).arrived(before); err == nil {
		t.Error("it has arrived, although nothing has happened")
	}
}

func TestCensusBounds(t *testing.T) {
	c := newCensus()
	there, dialling, gone := c.begin(), c.begin(), c.begin()
	c.served(there)
	c.served(gone)
	c.end(gone)
	_ = dialling
	now := time.Now()
	if least, most := c.bounds(now, now); least != 1 || most != 3 {
		t.Errorf("got %d to %d, want the one that is served, and three at most", least, most)
	}
	later := now.Add(2 * censusGrace)
	if least, most := c.bounds(later, later); least != 1 || most != 2 {
		t.Errorf("later: got %d to %d, want 1 to 2", least, most)
	}
}
