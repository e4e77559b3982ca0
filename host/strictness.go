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
func (h *Host) strictness(ctx context.Context, instance string, incarnation int, locality transport.Locality) transport.AuthStrictness {
	if locality == transport.Remote {
		// What this plugin is has just become known: others wait for nothing
		// else, perhaps.
		h.signal()
		h.awaitLocal(ctx, instance)
	}
	now := h.strictnessNow()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told[processID{instance, incarnation}] = now
	return now
}

// awaitLocal returns when no plugin that is not remote is about to become
// ready, but for the one that asks, or ctx ends. The first attempt counts: one
// that backs off has failed.
func (h *Host) awaitLocal(ctx context.Context, asks string) {
	for {
		h.mu.Lock()
		turn := h.turn
		h.mu.Unlock()
		if !slices.ContainsFunc(h.supervised(), func(p *supervisor.Plugin) bool { return mayBecomeReady(p.Status(), asks) }) {
			return
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return
		}
	}
}

func mayBecomeReady(s supervisor.Status, asks string) bool {
	// Stopped is what a plugin is before its first process.
	return s.Instance != asks && s.Locality != transport.Remote.String() && (s.State == supervisor.Starting || s.State == supervisor.Stopped)
}

// strictnessNow counts the ready plugins that are not remote. One that is being
// replaced counts: its peers only wait for a moment.
func (h *Host) strictnessNow() transport.AuthStrictness {
	for _, p := range h.supervised() {
		s := p.Status()
		if s.Serves() && s.Locality != transport.Remote.String() {
			return transport.AllowRecoverable
		}
	}
	return transport.RequireReady
}
