package host

import (
	"github.com/transporthost/transporthost/host/router"
	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/rpc"
	"github.com/transporthost/transporthost/shared/transport"
)

// sessions is the router as the supervisor sees it.
type sessions struct{ r *router.Router }

var _ supervisor.Sessions = sessions{}

func (s sessions) Attach(instance string, incarnation int, link *rpc.Link) supervisor.Attachment {
	return s.r.Attach(instance, incarnation, link)
}

func (s sessions) Resumable(instance string) []transport.Resume { return s.r.Resumable(instance) }

func (s sessions) Abandon(instance string, reason transport.CloseReason) {
	s.r.Abandon(instance, reason)
}
