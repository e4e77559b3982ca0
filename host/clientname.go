package host

import (
	"context"
	"fmt"

	"github.com/transporthost/transporthost/shared/transport"
)

// clientName returns what the program at the terminal calls itself in its first
// initialize request (spec 4.1, 8.2). It waits for that, and returns "" at once
// if this host serves no terminal.
func (h *Host) clientName(ctx context.Context) (string, error) {
	if h.terminal == nil {
		return "", nil
	}
	for {
		h.mu.Lock()
		name, left, turn := h.named, h.left, h.turn
		h.mu.Unlock()
		switch {
		case name != "":
			return name, nil
		case left:
			return "", fmt.Errorf("the peer at the terminal has left without a name: %w", transport.ErrNotFound)
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// clientNamed hears of names. The first one at the terminal stays.
func (h *Host) clientNamed(instance, name string) {
	if h.terminal == nil || instance != h.terminalName {
		return
	}
	h.mu.Lock()
	first := h.named == ""
	if first {
		h.named = name
	}
	h.mu.Unlock()
	if first {
		h.signal()
	}
}
