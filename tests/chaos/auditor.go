//go:build linux

package main

import (
	"context"
	"sync"
	"time"
)

const (
	// sampleInterval is how often the status is compared with what is known.
	sampleInterval = 250 * time.Millisecond
	// statusTimeout is how long the host may take to tell its status: it waits
	// for nobody.
	statusTimeout = 2 * time.Second
	// memoryInterval is how often the memory is read.
	memoryInterval = time.Second
	// overdue is how long a request may wait for its answer whatever happens: a
	// plugin that hangs, is found and replaced, behind a relay that is gone.
	overdue = 30 * time.Second
)

// A usage is what the host's process had in memory, and ran, at a moment.
type usage struct {
	at         time.Time
	resident   int64
	goroutines int
	files      int
}

// An auditor compares what the host says of itself with what is known, all the
// time, and writes down what it uses.
type auditor struct {
	l *laboratory

	mu     sync.Mutex // guards what follows
	usages []usage
	seen   map[process]bool // processes below the host, ever
}

func newAuditor(l *laboratory) *auditor { return &auditor{l: l, seen: map[process]bool{}} }

// run samples until ctx ends.
func (a *auditor) run(ctx context.Context) {
	var measured time.Time
	for pause(ctx, sampleInterval) {
		a.sample(ctx)
		if time.Since(measured) >= memoryInterval {
			measured = time.Now()
			a.measure(ctx)
		}
		for _, t := range transports {
			if text, oldest := a.l.record.outstanding(t, time.Now()); text != "" && time.Since(oldest) > overdue {
				a.l.record.fail("lost: no answer for %v to %s", overdue, text)
			}
		}
	}
}

// sample compares one status with what is known.
func (a *auditor) sample(ctx context.Context) {
	r := a.l.record
	before, app := a.l.known.snapshot()
	began := time.Now()
	asking, cancel := context.WithTimeout(ctx, statusTimeout)
	s, err := a.l.host.asked.Status(asking)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			r.fail("the host does not tell its status within %v: %v", statusTimeout, err)
		}
		return
	}
	ended := time.Now()
	after, appAfter := a.l.known.snapshot()
	if ctx.Err() != nil {
		return
	}
	for _, text := range disagreements(s, before, after, app, appAfter) {
		r.fail("the status disagrees: %s", text)
	}
	// What was touched lately may be on its way out, or in.
	if !r.exposure.touched(websocket, began.Add(-censusGrace)) {
		least, most := a.l.census.bounds(began, ended)
		others := 1 + len(a.l.phones)
		if s.Connections < least+others || s.Connections > most+others {
			r.fail("the status disagrees: there are %d connections, want the terminal, %d phones, and %d to %d sockets", s.Connections, len(a.l.phones), least, most)
		}
	}
	r.count(func(n *counts) { n.samples++ })
}

// measure writes down what the host uses, and who runs below it.
func (a *auditor) measure(ctx context.Context) {
	s, err := a.l.host.asked.Status(ctx)
	if err != nil {
		return // sample says so
	}
	resident, err := residentBytes(a.l.host.pid())
	if err != nil {
		if ctx.Err() == nil {
			a.l.record.fail("%v", err)
		}
		return
	}
	members := family(a.l.host.pid())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.usages = append(a.usages, usage{at: time.Now(), resident: resident, goroutines: s.Resources.Goroutines, files: s.Resources.OpenFiles})
	for _, p := range members {
		a.seen[p] = true
	}
}

// everSeen lists the processes that ran below the host.
func (a *auditor) everSeen() []process {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []process
	for p := range a.seen {
		all = append(all, p)
	}
	return all
}

func (a *auditor) history() []usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]usage(nil), a.usages...)
}
