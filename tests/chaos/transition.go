//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/transporthost/transporthost/host"
)

// A transition is what the status of a plugin may be while its process is
// replaced.
type transition struct {
	part   part
	before host.TransportStatus
	times  int      // processes that may take the place of the one before
	states []string // beside ready
	causes []string // one of them is in the cause, once the process before is noticed to be gone
}

// replacing is the transition after a process that ends with a cause.
func replacing(p part, before host.TransportStatus, times int, causes ...string) transition {
	return transition{part: p, before: before, times: times, causes: causes, states: []string{"backing-off", "starting", "degraded"}}
}

// check judges one status.
func (t transition) check(s host.TransportStatus) error {
	next := s.Restarts - t.before.Restarts
	switch {
	case next < 0 || next > t.times || s.Incarnation-t.before.Incarnation != next:
		return fmt.Errorf("%d restarts, incarnation %d, want at most %d more than %d and %d", s.Restarts, s.Incarnation, t.times, t.before.Restarts, t.before.Incarnation)
	case next == 0 && s.PID == t.before.PID && s.State == t.before.State:
		return nil // it has not been noticed yet
	case next > 0 && s.PID == t.before.PID:
		return fmt.Errorf("incarnation %d has the pid %d of the one before", s.Incarnation, s.PID)
	case s.State != "ready" && !slices.Contains(t.states, string(s.State)):
		return fmt.Errorf("state is %q (%s), want ready or one of %v", s.State, s.Cause, t.states)
	}
	return t.names(s)
}

// names says whether the cause is the one that is known. A transport that says
// why it is degraded, or was, has another one.
func (t transition) names(s host.TransportStatus) error {
	if s.State == "stopping" && s.Cause == t.before.Cause {
		return nil // why it was restarted last: until it has ended, that is still it
	}
	if t.part == remotecontrol && (s.State == "degraded" || s.State == "ready") {
		return nil
	}
	for _, cause := range t.causes {
		if strings.Contains(s.Cause, cause) {
			return nil
		}
	}
	return fmt.Errorf("in state %q its cause is %q, want one with %q", s.State, s.Cause, t.causes)
}

// arrived judges the status that the plugin has come to rest with.
func (t transition) arrived(s host.TransportStatus) error {
	if got := s.Restarts - t.before.Restarts; got < 1 || got > t.times {
		return fmt.Errorf("it has %d restarts, want 1 to %d more than %d", s.Restarts, t.times, t.before.Restarts)
	}
	if fields := statOf(s.PID); len(fields) == 0 || fields[0] == "Z" {
		return fmt.Errorf("it is %s with the pid %d, where no process runs", s.State, s.PID)
	}
	return errors.Join(t.check(s), t.names(s))
}

// staying judges a status while a transport may lose its peers, but not its
// process.
func staying(before host.TransportStatus) func(host.TransportStatus) error {
	return func(s host.TransportStatus) error {
		if !slices.Contains([]string{"ready", "degraded", "disabled"}, string(s.State)) {
			return fmt.Errorf("state is %q (%s), although its process was not touched", s.State, s.Cause)
		}
		if s.PID != before.PID || s.Incarnation != before.Incarnation || s.Restarts != before.Restarts {
			return fmt.Errorf("pid %d, incarnation %d, %d restarts, want %d, %d and %d: its process was not touched",
				s.PID, s.Incarnation, s.Restarts, before.PID, before.Incarnation, before.Restarts)
		}
		return nil
	}
}
