package childproc

import (
	"fmt"
	"net"
	"os/exec"
	"sync"

	"github.com/transporthost/transporthost/host/internal/lineage"
)

// The owners are those in whose names children were started, until nothing of
// the children is left.
type owners struct {
	mu   sync.Mutex // guards list; held while a child that has an owner is started
	list map[uint32]belonging
}

// A belonging is a child that has an owner.
type belonging struct {
	owner string
	group int // its process group
}

// start starts a child in the name of an owner. Nobody is told meanwhile whom a
// process belongs to: it could be the child, and not known by its group yet.
func (o *owners) start(owner string, child uint32, cmd *exec.Cmd, start func() error) error {
	if owner == "" {
		return start()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := start(); err != nil {
		return err
	}
	if o.list == nil {
		o.list = map[uint32]belonging{}
	}
	o.list[child] = belonging{owner, cmd.Process.Pid} // it leads a group of its own
	return nil
}

// forget is called when nothing is left of a child.
func (o *owners) forget(child uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.list, child)
}

// of returns whom a process belongs to.
func (o *owners) of(p lineage.Peer) (owner string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	// The group first: what is confined cannot leave that, but can give itself
	// the mark of another.
	for _, b := range o.list {
		if b.group == p.Group {
			return b.owner, true
		}
	}
	for child, b := range o.list {
		if p.Bears(child) {
			return b.owner, true
		}
	}
	return "", false
}

// PeerOwner returns in whose name the process that made the connection c was
// started, or the child that it descends from, and its pid; "" means in nobody's.
// An error means that this cannot be known. It waits while a child that has an
// owner is started.
//
// A child is known by its group and by its mark. What leaves the group of its
// child and takes both halves of its mark off belongs to nobody; the sandbox
// forbids the first. On other systems than Linux nothing belongs to anybody.
func (s *Starter) PeerOwner(c *net.UnixConn) (owner string, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", 0, fmt.Errorf("asking who has connected: %w", err)
	}
	p, err := s.run.Peer(raw)
	if err != nil {
		return "", p.PID, err
	}
	owner, _ = s.owners.of(p)
	return owner, p.PID, nil
}
