package application

import (
	"context"
	"sync"
)

// A crew is the goroutines of an application that come and go while it runs:
// Open and Deliver start them, Run waits for them.
type crew struct {
	begun chan struct{}   // closed when life is there
	life  context.Context // of Run

	mu        sync.Mutex // guards what follows; held while wg counts up
	dismissed bool
	wg        sync.WaitGroup
}

func newCrew() *crew { return &crew{begun: make(chan struct{})} }

// begin tells the crew that Run has begun.
func (c *crew) begin(life context.Context) {
	c.life = life
	close(c.begun)
}

// hire starts work, which waits for begun before it looks at life. It reports
// whether it did: not after dismiss.
func (c *crew) hire(work func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed {
		return false
	}
	c.wg.Go(work)
	return true
}

// dismiss blocks until everybody is done; nobody is hired any more.
func (c *crew) dismiss() {
	c.mu.Lock()
	c.dismissed = true
	c.mu.Unlock()
	c.wg.Wait()
}
