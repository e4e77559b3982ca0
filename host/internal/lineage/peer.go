package lineage

import (
	"errors"
	"slices"
)

// A Peer is the process that connected to a unix socket of this one, as far as
// it is to be known by. The zero value is a process that cannot descend from any
// run of a host, or one on a system that does not tell.
type Peer struct {
	PID   int
	Group int      // its process group
	marks []uint32 // the children of the run whose marks it bears
}

// Bears reports whether the peer bears the mark of a child of the run that it
// was looked at for.
func (p Peer) Bears(child uint32) bool { return slices.Contains(p.marks, child) }

// Why a peer cannot be told.
var (
	ErrPeerGone   = errors.New("the process that connected has ended")
	ErrPeerHidden = errors.New("nothing can be known of the process that connected")
)
