package host

import (
	"context"
	"slices"

	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// How strict remote plugins are about their credentials (design §6): they may
// wait for better ones if peers can reach the application another way.

// strictness is what a plugin is told when it starts. A remote one waits here
// until every other has become ready or has failed: how many are ready is what
// the answer depends on.
func (h *Host) strictness(ctx context.Context, instance string, locality transport.Locality) transport.AuthStrictness {
	if locality == transport.Remote {
		// What this plugin is has just become known: others wait for nothing
		// else, perhaps.
		h.signal()
		h.awaitLocal(ctx)
	}
	now := h.strictnessNow()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told[instance] = now
	return now
}

// awaitLocal returns when no plugin that is not remote is about to become
// ready, or ctx ends. The first attempt counts: one that backs off has failed.
func (h *Host) awaitLocal(ctx context.Context) {
	for {
		h.mu.Lock()
		turn := h.turn
		h.mu.Unlock()
		if !slices.ContainsFunc(h.supervised(), mayBecomeReady) {
			return
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return
		}
	}
}

func mayBecomeReady(p *supervisor.Plugin) bool {
	s := p.Status()
	// Stopped is what a plugin is before its first process.
	return s.Locality != transport.Remote.String() && (s.State == supervisor.Starting || s.State == supervisor.Stopped)
}

// strictnessNow counts the ready plugins that are not remote.
func (h *Host) strictnessNow() transport.AuthStrictness {
	for _, p := range h.supervised() {
		s := p.Status()
		if s.State == supervisor.Ready && s.Locality != transport.Remote.String() {
			return transport.AllowRecoverable
		}
	}
	return transport.RequireReady
}

// supervised returns the plugins that have, or should have, a process.
func (h *Host) supervised() []*supervisor.Plugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.plugins)
}
