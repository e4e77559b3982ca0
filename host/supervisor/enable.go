package supervisor

import (
	"context"
	"errors"
	"fmt"

	"github.com/transporthost/transporthost/shared/transport"
)

// ErrDisabled is returned for a restart of a plugin that the configuration
// disables.
var ErrDisabled = errors.New("disabled by the configuration")

func (p *Plugin) enableRemedy() string { return "transporthost remote enable " + p.instance }

// sleep returns when the plugin is to have a process: at once, unless the
// configuration disables it.
func (p *Plugin) sleep(ctx context.Context) ([]restartRequest, error) {
	p.mu.Lock()
	asleep := p.asleep
	p.mu.Unlock()
	for asleep {
		select {
		case r := <-p.restarts:
			if r.leave {
				p.left(r)
				return nil, errLeft
			}
			if r.spec != nil { // for when it is enabled
				p.adopt(r.spec)
				r.done <- nil
				continue
			}
			if !r.enable {
				r.done <- fmt.Errorf("%w; enable it with: %s", ErrDisabled, p.enableRemedy())
				continue
			}
			p.mu.Lock()
			p.asleep, p.enabled = false, true
			p.mu.Unlock()
			p.update(func(s *Status) { s.Cause, s.Remedy = "enabled by a person", "" })
			return []restartRequest{r}, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, nil
}

// SetEnabled switches the plugin on or off, for its processes to come as well.
// Off, it keeps its process, which must have declared that it can be switched.
// A plugin that the configuration disables, or that has failed, gets a process
// when it is switched on; then SetEnabled returns once that is ready, or with
// why it is not.
func (p *Plugin) SetEnabled(ctx context.Context, on bool) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.turn }()

	p.mu.Lock()
	asleep, known, caps, failed, link := p.asleep, p.known, p.caps, p.status.State == Failed, p.link
	switch {
	case asleep && !on:
		p.mu.Unlock()
		return nil
	case asleep:
		p.mu.Unlock()
		return p.ask(ctx, restartRequest{enable: true})
	case on && failed:
		p.enabled = true
		p.mu.Unlock()
		return p.ask(ctx, restartRequest{enable: true})
	case on == p.enabled && (link == nil || !caps.SetEnabled):
		p.mu.Unlock()
		return nil
	case !known:
		p.mu.Unlock()
		return fmt.Errorf("it has not started yet, and has not said whether it can be switched off: %w", transport.ErrNotSupported)
	case !caps.SetEnabled:
		name := p.spec.Plugin
		p.mu.Unlock()
		return fmt.Errorf("the plugin %q cannot be switched off while it runs: %w", name, transport.ErrNotSupported)
	}
	// In one step: either the process to come starts with the wish, or the link
	// of the one that is there is seen here.
	p.enabled = on
	p.mu.Unlock()
	if link == nil {
		return nil // the next process is told when it starts
	}
	return p.tellEnabled(ctx, on)
}

// tellEnabled tells the process. The caller has the turn.
func (p *Plugin) tellEnabled(ctx context.Context, on bool) error {
	link, caps := p.ready()
	if link == nil || !caps.SetEnabled {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, transport.NotifyTimeout)
	defer cancel()
	if err := link.SetEnabled(ctx, on); err != nil {
		return fmt.Errorf("the process was not told, its successor will be: %w", err)
	}
	p.update(p.appearLocked)
	return nil
}

// tellEnabledAgain tells a process that began with what nobody wants any more.
func (p *Plugin) tellEnabledAgain(ctx context.Context) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-p.turn }()
	p.mu.Lock()
	on := p.enabled
	p.mu.Unlock()
	if err := p.tellEnabled(ctx, on); err != nil {
		p.log.Warn("switching the plugin", "enabled", on, "error", err)
	}
}
