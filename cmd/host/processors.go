package main

import (
	"runtime"
	"sync"
)

// The processors are those that the Go runtime of the host uses: half of the
// machine's, since the plugins do the same and are at work when it is. On a
// machine with two that is one, which is enough for messages, each of which
// takes microseconds. It is not while a plugin is launched: whatever computes a
// key, verifies a certificate, or forks, keeps its processor for milliseconds,
// and with the only one of them all peers would wait.
type processors struct {
	all int

	mu       sync.Mutex // guards what follows, and the runtime's number
	launches int        // under way
}

// shareProcessors takes half of what there is.
func shareProcessors() *processors {
	p := &processors{all: runtime.GOMAXPROCS(0)}
	runtime.GOMAXPROCS(p.usual())
	return p
}

func (p *processors) usual() int { return max(1, p.all/2) }

// launching sees to it that there are at least two, if the machine has them,
// until done is called.
func (p *processors) launching() (done func()) {
	p.change(1)
	return func() { p.change(-1) }
}

func (p *processors) change(launches int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.launches += launches
	n := p.usual()
	if p.launches > 0 {
		n = max(n, min(2, p.all))
	}
	if n != runtime.GOMAXPROCS(0) {
		runtime.GOMAXPROCS(n)
	}
}
