package host

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/host/internal/keeper"
	"github.com/transporthost/transporthost/host/internal/rundir"
	"github.com/transporthost/transporthost/shared/transport"
)

// The premises of a run are its private directory, and the keeper that clears
// it away, with all that the run has started, should nobody be left to do it.
// The zero value is ready to open.
type premises struct {
	dir   *rundir.Dir
	guard atomic.Pointer[keeper.Guard]
	watch group

	mu     sync.Mutex // guards what follows; held while the record is written
	closed bool
}

// open makes the directory. sockets are files of the run that are elsewhere. On
// an error nothing is left.
func (p *premises) open(ctx context.Context, configured string, parent *childproc.Starter, sockets []string, log hclog.Logger) (dir string, err error) {
	if p.dir, err = rundir.Plan(ctx, configured, parent.Lineage(), sockets, log); err != nil {
		return "", err
	}
	// The keeper first: of what it does not know it could leave something.
	g := keeper.NewGuard(parent, p.dir.Places(), sockets, log.Named("keeper"))
	g.Start()
	p.guard.Store(g)
	p.watch.start(ctx, g.Run)
	if err := p.dir.Make(); err != nil {
		p.watch.stop(err)
		return "", err
	}
	return p.dir.Path(), nil
}

// add makes further sockets known to the keeper, and to a later run that finds
// the directory. It is called before they are bound; those that are known
// already cost nothing.
func (p *premises) add(sockets []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return transport.ErrStopping
	}
	known := p.dir.Sockets()
	further := slices.DeleteFunc(slices.Clone(sockets), func(path string) bool { return slices.Contains(known, path) })
	if len(further) == 0 {
		return nil
	}
	if err := p.dir.Add(further); err != nil {
		return err
	}
	p.guard.Load().Add(further)
	return nil
}

// close removes the directory and ends the keeper.
func (p *premises) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.dir.Remove()
	p.watch.stop(errors.New("the run has ended"))
}

// keeper returns the pid of the keeper; 0: there is none.
func (p *premises) keeper() int {
	if g := p.guard.Load(); g != nil {
		return g.PID()
	}
	return 0
}

// unixSockets are the files of the sockets that the transports listen on.
func (c Config) unixSockets() []string {
	var paths []string
	for _, t := range c.Transports {
		for _, address := range t.Listen {
			if u, err := url.Parse(address); err == nil && u.Scheme == "unix" && u.Path != "" {
				paths = append(paths, u.Path)
			}
		}
	}
	return paths
}
