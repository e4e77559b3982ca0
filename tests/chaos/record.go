//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/transporthost/transporthost/tests/load"
)

// maxFailures is how many failures are kept: what follows the first few is
// their effect.
const maxFailures = 20

// traceLength is how many of the last events are told with a failure.
const traceLength = 60

// errFailed ends a run that has failed.
var errFailed = errors.New("the run has failed")

// counts are totals of the run.
type counts struct {
	statements, refused, ticks int64 // of peers; answered with an error; notifications of the application
	broken, connects, retried  int64 // sockets that broke, upgrades, and those that broke before they were one
	retired                    int64 // sockets that ended with their process, which an upgrade had replaced
	samples                    int64 // of the status
}

// A record collects what is seen during a run.
type record struct {
	exposure *exposure
	began    time.Time
	abort    context.CancelCauseFunc

	mu            sync.Mutex // guards what follows
	chaotic       bool
	calm          map[row]*load.Histogram // latencies in the calm run
	chaos         map[row]*load.Histogram // later, of transports that nobody touched
	touched       map[row]*load.Histogram // and of those that somebody did
	window        []latency               // of the stretch that is not over
	quiet         bool                    // nobody else used the machine in the one before
	whole, noisy  time.Duration           // of all stretches, and of those that do not count
	counts        counts
	conversations map[*conversation]bool
	failures      []string
	trace         []string
	recoveries    map[string][]time.Duration // by action
	actions       map[string]int
	upgrades      []time.Time // of the transport websocket, their beginnings
}

// A latency is one that waits for the end of its stretch.
type latency struct {
	into *load.Histogram
	took time.Duration
}

func newRecord(abort context.CancelCauseFunc) *record {
	return &record{
		exposure: newExposure(), began: time.Now(), abort: abort,
		calm: map[row]*load.Histogram{}, chaos: map[row]*load.Histogram{}, touched: map[row]*load.Histogram{},
		quiet: true, conversations: map[*conversation]bool{}, recoveries: map[string][]time.Duration{}, actions: map[string]int{},
	}
}

// fail notes a failure, and ends the run.
func (r *record) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.event("FAILURE %s", text)
	r.mu.Lock()
	if len(r.failures) < maxFailures {
		r.failures = append(r.failures, text)
	}
	r.mu.Unlock()
	r.abort(errFailed)
}

// event adds to the trace.
func (r *record) event(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trace = append(r.trace, fmt.Sprintf("%s %7.3fs  ", time.Now().Format("15:04:05.000"), time.Since(r.began).Seconds())+fmt.Sprintf(format, args...))
	if extra := len(r.trace) - traceLength; extra > 0 {
		r.trace = slices.Delete(r.trace, 0, extra)
	}
}

// told returns the failures and the trace.
func (r *record) told() (failures, trace []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.failures), slices.Clone(r.trace)
}

func (r *record) count(change func(*counts)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.counts)
}

func (r *record) join(c *conversation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conversations[c] = true
}

func (r *record) leave(c *conversation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conversations, c)
}

// talks lists the conversations that go on.
func (r *record) talks() []*conversation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.conversations))
}

// beginChaos ends the calm run.
func (r *record) beginChaos() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.chaotic = true
}

// A row is what latencies are told of: a transport, or connecting.
type row string

// answered enters the latency of an exchange over p that was due at due.
func (r *record) answered(name row, p part, due time.Time) {
	took := time.Since(due)
	disturbed := r.exposure.disturbed(p, due)
	r.mu.Lock()
	defer r.mu.Unlock()
	into := r.calm
	switch {
	case r.chaotic && disturbed:
		into = r.touched
	case r.chaotic:
		into = r.chaos
	}
	if into[name] == nil {
		into[name] = &load.Histogram{}
	}
	r.window = append(r.window, latency{into[name], took})
}

// closeWindow ends a stretch of such a length. What was measured in it counts
// only if the machine was ours, in it and in the one before, whose delays may
// reach into it.
func (r *record) closeWindow(length time.Duration, quiet bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole += length
	if quiet && r.quiet {
		for _, l := range r.window {
			l.into.Record(l.took)
		}
	} else {
		r.noisy += length
	}
	r.window, r.quiet = r.window[:0], quiet
}

// recovered enters how long an action kept a part from serving.
func (r *record) recovered(action string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recoveries[action] = append(r.recoveries[action], took)
}

// upgraded notes that the process of the sockets is replaced from now on.
func (r *record) upgraded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upgrades = append(r.upgrades, time.Now())
}

// retired reports whether a socket that was opened at born may be that of a
// process whose time to retire is over.
func (r *record) retired(born time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := slices.DeleteFunc(slices.Clone(r.upgrades), func(t time.Time) bool { return t.Before(born) })
	return len(since) > maxRetiring || len(since) > 0 && time.Since(since[0]) >= retireTimeout
}

// acted counts an action.
func (r *record) acted(action string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actions[action]++
}

// outstanding describes the requests of p that were due before t and have no
// answer, and since when the oldest waits; "" if there are none.
func (r *record) outstanding(p part, t time.Time) (text string, oldest time.Time) {
	var names []string
	for _, c := range r.talks() {
		if c.part != p {
			continue
		}
		n, since := c.outstanding(t)
		if n == 0 {
			continue
		}
		names = append(names, fmt.Sprintf("%d of %s", n, c.name))
		if oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", "), oldest
}
