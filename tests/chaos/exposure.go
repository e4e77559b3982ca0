//go:build linux

package main

import (
	"sync"
	"time"
)

// An exposure knows which parts are touched by an action, and when they last
// were. What a peer sees is judged by it: an error, a broken socket or a delay
// counts against the host only if nothing touched what it went through.
//
// Who touches the application touches the answers of all transports.
type exposure struct {
	mu    sync.Mutex // guards what follows
	now   map[part]int
	until map[part]time.Time
}

func newExposure() *exposure { return &exposure{now: map[part]int{}, until: map[part]time.Time{}} }

// touch begins a touch of parts, and returns what ends it.
func (e *exposure) touch(parts ...part) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range parts {
		e.now[p]++
	}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, p := range parts {
			e.now[p]--
			e.until[p] = time.Now()
		}
	}
}

// touched reports whether p was touched at any time from since until now.
func (e *exposure) touched(p part, since time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now[p] > 0 || e.until[p].After(since)
}

// disturbed reports whether an exchange of p that began at since may have been
// delayed by a touch.
func (e *exposure) disturbed(p part, since time.Time) bool {
	return e.touched(p, since) || e.touched(application, since)
}
