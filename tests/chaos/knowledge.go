//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/transporthost/transporthost/host"
)

// knowledge is what the test knows of the plugins and the application, because
// it did it: what the status has to say.
type knowledge struct {
	mu      sync.Mutex // guards what follows
	plugins map[part]fact
	app     appFact
}

// A fact is what the status of one plugin has to be.
type fact struct {
	version int // of the fact
	settled host.TransportStatus
	// during says what is wrong with a status while an action is under way, nil
	// while none is.
	during func(host.TransportStatus) error
}

// An appFact is the same of the application.
type appFact struct {
	version  int
	restarts int
	moving   bool // it was killed, and is not back
}

// begin says that an action is under way, whose statuses during judges.
func (k *knowledge) begin(p part, during func(host.TransportStatus) error) (before host.TransportStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.plugins[p]
	f.version++
	f.during = during
	k.plugins[p] = f
	return f.settled
}

// settle says that a plugin is as s says from now on.
func (k *knowledge) settle(p part, s host.TransportStatus) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.plugins[p] = fact{version: k.plugins[p].version + 1, settled: s}
}

// plugin returns the status that a plugin had when it settled last.
func (k *knowledge) plugin(p part) host.TransportStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.plugins[p].settled
}

func (k *knowledge) appMoves(moving bool, restarts int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.app = appFact{version: k.app.version + 1, restarts: k.app.restarts + restarts, moving: moving}
}

func (k *knowledge) snapshot() (map[part]fact, appFact) {
	k.mu.Lock()
	defer k.mu.Unlock()
	plugins := map[part]fact{}
	for p, f := range k.plugins {
		plugins[p] = f
	}
	return plugins, k.app
}

// disagreements compares a status, which was taken between two snapshots, with
// what was known at both.
func disagreements(s host.Status, before, after map[part]fact, app, appAfter appFact) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if s.State != host.StateServing {
		add("the host is %q, want %q", s.State, host.StateServing)
	}
	if len(s.Plugins) != len(transports) {
		add("there are %d transports, want %d", len(s.Plugins), len(transports))
	}
	for _, p := range s.Plugins {
		f := before[part(p.Instance)]
		if f.version != after[part(p.Instance)].version {
			continue // it changed meanwhile
		}
		check := f.during
		if check == nil {
			check = func(p host.TransportStatus) error { return unchanged(f.settled, p) }
		}
		if err := check(p); err != nil {
			add("transport %s: %v", p.Instance, err)
		}
	}
	if app.version == appAfter.version {
		all = append(all, appDisagreements(s, app)...)
	}
	if c := s.Counters; c.Invalid+c.Violations+c.Slow+c.Refused+c.Overloaded > 0 {
		add("the host counts %d invalid messages, %d violations of plugins, %d slow peers, %d refused and %d overloaded, want none of them",
			c.Invalid, c.Violations, c.Slow, c.Refused, c.Overloaded)
	}
	return all
}

// unchanged compares a status with the one that the plugin settled with.
func unchanged(want, got host.TransportStatus) error {
	var errs []error
	differ := func(what string, got, want any) {
		errs = append(errs, fmt.Errorf("%s is %v, want %v", what, got, want))
	}
	if got.State != want.State {
		differ("state", fmt.Sprintf("%q (%s)", got.State, got.Cause), fmt.Sprintf("%q", want.State))
	}
	if got.PID != want.PID {
		differ("pid", got.PID, want.PID)
	}
	if got.Incarnation != want.Incarnation {
		differ("incarnation", got.Incarnation, want.Incarnation)
	}
	if got.Restarts != want.Restarts {
		differ("restarts", got.Restarts, want.Restarts)
	}
	if got.Cause != want.Cause {
		differ("cause", fmt.Sprintf("%q", got.Cause), fmt.Sprintf("%q", want.Cause))
	}
	if part(got.Instance) != websocket && len(got.Retiring) > 0 {
		differ("the number of retiring processes", len(got.Retiring), 0)
	}
	for _, old := range got.Retiring {
		if old.PID == got.PID || old.Incarnation >= got.Incarnation {
			differ("a retiring process", fmt.Sprintf("incarnation %d, pid %d", old.Incarnation, old.PID), "an earlier one")
		}
	}
	if !slices.Equal(got.Addresses, want.Addresses) {
		differ("addresses", got.Addresses, want.Addresses)
	}
	return errors.Join(errs...)
}

func appDisagreements(s host.Status, app appFact) []string {
	var all []string
	a := s.Application
	if app.moving {
		if a.Restarts != app.restarts && a.Restarts != app.restarts+1 {
			all = append(all, fmt.Sprintf("the application has %d restarts, want %d or one more", a.Restarts, app.restarts))
		}
		return all
	}
	if !a.Ready || a.Children != 1 || a.Restarts != app.restarts {
		all = append(all, fmt.Sprintf("the application is ready: %v, with %d processes and %d restarts, want one process and %d", a.Ready, a.Children, a.Restarts, app.restarts))
	}
	if app.restarts > 0 && !strings.Contains(a.Cause, "SIGKILL") {
		all = append(all, fmt.Sprintf("the application's cause is %q, want one that names SIGKILL", a.Cause))
	}
	return all
}
