package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/transporthost/transporthost/host/supervisor"
	"github.com/transporthost/transporthost/shared/transport"
)

// A courier tells one plugin what has changed around it: how strict it is to be,
// and that there are other credentials. Every plugin has its own, so that one
// that hangs delays nobody. Only the latest counts: a courier that was busy
// skips what is no longer true.
type courier struct {
	host   *Host
	plugin *supervisor.Plugin
	wake   chan struct{} // one slot

	// Of run.
	incarnation int    // of the process that generation is about
	generation  uint64 // of the credentials that the process knows of
	complained  bool   // of what could not be told, since something was
}

// tellAgainAfter is when a courier tries again what it could not tell: a process
// that was only busy must not miss a change for good.
const tellAgainAfter = time.Second

func newCourier(h *Host, p *supervisor.Plugin) *courier {
	return &courier{host: h, plugin: p, wake: make(chan struct{}, 1)}
}

// call makes the courier look. It does not block.
func (c *courier) call() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *courier) run(ctx context.Context) error {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-c.wake:
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		s := c.plugin.Status()
		switch {
		case up(s):
			err := errors.Join(c.tellStrictness(ctx, s), c.tellCredentials(ctx, s))
			if err == nil {
				c.complained = false
				break
			}
			if !c.complained {
				c.complained = true
				c.host.cfg.Logger.Warn("a change could not be told; it is tried again", "transport", s.Instance, "error", err)
			}
			again.Reset(tellAgainAfter)
		case s.State == supervisor.Failed:
			c.reconsider(s)
		}
	}
}

// up reports whether a plugin has a process that is ready to be told
// something.
func up(s supervisor.Status) bool {
	return s.State == supervisor.Ready || s.State == supervisor.Degraded || s.State == supervisor.Disabled && s.PID != 0
}

// tellStrictness tells a remote plugin whose last answer is no longer true.
func (c *courier) tellStrictness(ctx context.Context, s supervisor.Status) error {
	h := c.host
	if s.Locality != transport.Remote.String() {
		return nil
	}
	now := h.strictnessNow()
	h.mu.Lock()
	before := h.told[processOf(s)]
	h.mu.Unlock()
	if before == now {
		return nil
	}
	if err := c.plugin.SetAuthStrictness(ctx, now); err != nil {
		return fmt.Errorf("telling the auth strictness: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told[processOf(s)] == before { // else another process has begun with a newer answer
		h.told[processOf(s)] = now
	}
	return nil
}

// tellCredentials tells a plugin of credentials that it does not have yet. A
// process that becomes ready asks by itself, and hears only of what changed
// after that.
func (c *courier) tellCredentials(ctx context.Context, s supervisor.Status) error {
	change, _, given := c.host.lastChange(processOf(s))
	if c.incarnation != s.Incarnation {
		c.incarnation, c.generation = s.Incarnation, given
		if given == 0 {
			c.generation = change.Generation
		}
	}
	c.generation = max(c.generation, given)
	if change.Generation <= c.generation || !c.host.granted(s.Instance, GrantCredentials) {
		return nil
	}
	if err := c.plugin.NotifyCredentialsChanged(ctx, change); err != nil {
		return fmt.Errorf("telling of generation %d of the credentials: %w", change.Generation, err)
	}
	c.generation = change.Generation
	return nil
}

// reconsider tries a plugin again that refused to start for its credentials,
// once it may wait for better ones, or there are others.
func (c *courier) reconsider(s supervisor.Status) {
	if !errors.Is(c.plugin.Refusal(), transport.ErrPermissionDenied) {
		return
	}
	change, base, _ := c.host.lastChange(processOf(s))
	c.host.mu.Lock()
	told := c.host.told[processOf(s)]
	c.host.mu.Unlock()
	if change.Generation > base || told == transport.RequireReady && c.host.strictnessNow() == transport.AllowRecoverable {
		c.plugin.Revive()
	}
}

// credentialsChanged takes a change of the credentials, for the couriers.
func (h *Host) credentialsChanged(change transport.CredentialsChange) {
	h.mu.Lock()
	if change.Generation > h.change.Generation {
		h.change = change
	}
	h.mu.Unlock()
	h.signal()
}

// processOf names the process that a status is about.
func processOf(s supervisor.Status) processID { return processID{s.Instance, s.Incarnation} }

// lastChange returns the last change of the credentials, and what a process
// knows: see [knowledge].
func (h *Host) lastChange(id processID) (change transport.CredentialsChange, base, given uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.known[id]; k != nil {
		base, given = k.base, k.given.Load()
	}
	return h.change, base, given
}
