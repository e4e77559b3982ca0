package host

import (
	"context"
	"fmt"
)

// Probe returns nil if the host is not stuck: its main loop has looked at
// everything that [Host.Status] tells, and whatever starts children has
// answered. It is what a watchdog asks. Before Run and after it, the answer is
// an error; while the host hangs, Probe blocks until ctx ends.
//
// A host whose plugins are dead or hang, or that drains, is not stuck.
func (h *Host) Probe(ctx context.Context) error {
	if err := h.starter.Probe(ctx); err != nil {
		return fmt.Errorf("asking what starts the children: %w", err)
	}
	answered := make(chan struct{})
	select {
	case h.probes <- answered:
	case <-h.served:
		// Drained by another loop, whose waits are bounded.
		go func() { // ends at once, or with a host that hangs
			_ = h.Status()
			close(answered)
		}()
	case <-ctx.Done():
		return fmt.Errorf("the main loop does not answer: %w", context.Cause(ctx))
	}
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("something holds a lock of the host: %w", context.Cause(ctx))
	}
}
