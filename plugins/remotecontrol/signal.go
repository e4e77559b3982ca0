package remotecontrol

import (
	"context"
	"sync"
)

// A toggle is whether remote control is enabled. It is safe for concurrent use.
type toggle struct {
	mu      sync.Mutex // guards what follows
	on      bool
	changed chan struct{}           // closed and replaced at every change
	end     context.CancelCauseFunc // of the running period, or nil
}

func newToggle() *toggle { return &toggle{changed: make(chan struct{})} }

// set switches; a value that it has already changes nothing.
func (t *toggle) set(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.on == on {
		return
	}
	t.on = on
	close(t.changed)
	t.changed = make(chan struct{})
	if !on && t.end != nil {
		t.end(errDisabled)
	}
}

// get returns the value and a channel that is closed when it changes.
func (t *toggle) get() (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.on, t.changed
}

// period returns a context that ends with errDisabled when remote control is
// switched off, and false if it is off. One period runs at a time.
func (t *toggle) period(ctx context.Context) (context.Context, context.CancelCauseFunc, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on {
		return nil, nil, false
	}
	ctx, t.end = context.WithCancelCause(ctx)
	return ctx, t.end, true
}

// news is the generation of the host's credentials, as far as it was told of.
// It is safe for concurrent use.
type news struct {
	mu      sync.Mutex // guards what follows
	latest  uint64
	changed chan struct{} // closed and replaced at every change
}

func newNews() *news { return &news{changed: make(chan struct{})} }

// tell notes a generation.
func (n *news) tell(generation uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if generation <= n.latest {
		return
	}
	n.latest = generation
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *news) generation() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latest
}

// beyond returns a channel that is closed at news, which it is already if there
// is a generation above the one that the caller knows. It may be closed at
// older news: then ask again.
func (n *news) beyond(known uint64) <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.latest > known {
		return closedSignal()
	}
	return n.changed
}

func closedSignal() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
