package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// describe asks a process who it is, and makes what it is started with. It may
// wait until ctx ends: how strict a remote plugin is to be depends on others.
func (in *incarnation) describe(ctx context.Context) error {
	// A process that dies meanwhile ends the calls: gRPC sees it at once.
	c, cancel := context.WithTimeout(ctx, transport.DescribeTimeout)
	defer cancel()
	d, err := in.proc.link.Describe(c)
	if err != nil {
		return in.proc.whyGone(fmt.Errorf("describing plugin %q: %w", in.spec.Plugin, err))
	}
	if err := checkDescription(d); err != nil {
		return fmt.Errorf("describing plugin %q: %w", in.spec.Plugin, err)
	}
	in.description = d
	if in.config, err = in.plugin.opts.Check(in.spec, d); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrInvalidConfig, err)
	}
	return nil
}

// start introduces host and process to each other: when it returns nil, peers
// can reach the transport.
func (in *incarnation) start(ctx context.Context) error {
	p := in.plugin
	params := transport.StartParams{
		Instance: p.instance, Incarnation: in.n, Config: in.config,
		AuthStrictness: in.strictness, MaxMessageBytes: in.spec.MaxMessageBytes,
	}
	p.mu.Lock()
	in.toldEnabled = p.enabled
	p.mu.Unlock()
	params.Enabled = in.toldEnabled
	if in.description.Capabilities.Resume {
		params.Resume = p.opts.Sessions.Resumable(p.instance)
	}
	fd := 3 // the first of ExtraFiles
	for i := range in.listening {
		params.Inherited = append(params.Inherited, transport.Inherited{
			Name: "listen:" + strconv.Itoa(i), FD: fd, URL: in.spec.Listeners.URLs()[i],
		})
		fd++
	}
	if in.pipes != nil {
		params.Inherited = append(params.Inherited,
			transport.Inherited{Name: "stdin", FD: fd}, transport.Inherited{Name: "stdout", FD: fd + 1})
		in.pipes.start(ctx)
	}
	c, cancel := context.WithTimeout(ctx, transport.StartTimeout)
	defer cancel()
	c, done := withLink(c, in.linkEnd)
	result, err := in.proc.link.Start(c, params)
	lost := done()
	if err != nil {
		if lost != nil && errors.Is(err, context.Canceled) { // that is what ended the call
			return in.proc.whyGone(fmt.Errorf("starting plugin %q: %w", in.spec.Plugin, lost))
		}
		if refused(err) {
			return inItsWords(err)
		}
		return in.proc.whyGone(fmt.Errorf("starting plugin %q: %w", in.spec.Plugin, err))
	}
	in.attachment.Started(result.Adopted)
	in.addresses = shownAddresses(result.Addresses)
	in.started = true
	in.readySince = time.Now()
	in.watching.Go(func() { in.watch(in.life) })
	return nil
}

// crown makes in, which has been started, the process that the status is about
// and that is told things. cause is why it is there; empty: what is known
// already.
func (p *Plugin) crown(in *incarnation, cause string) {
	// Before the state: who sees that it is ready can tell it something.
	p.mu.Lock()
	p.current, p.link = in, in.proc.link
	p.caps, p.known = in.description.Capabilities, true
	late, draining := p.enabled != in.toldEnabled, p.drains()
	p.mu.Unlock()
	p.update(func(s *Status) {
		if s.Incarnation != in.n { // else that has been said when it was started
			s.Restarts++
			s.Since, s.Reported = in.readySince, in.report
		}
		in.show(s)
		s.Successor = nil
		if cause != "" {
			s.Cause = cause
		}
		s.Addresses, s.Remedy = in.addresses, ""
		p.appearLocked(s)
	})
	if late {
		in.telling.Go(func() { p.tellEnabledAgain(in.life) })
	}
	if draining {
		in.telling.Go(in.drainLate)
	}
}

// show makes s the status of in.
func (in *incarnation) show(s *Status) {
	d := in.description
	s.Incarnation, s.PID, s.Path = in.n, in.proc.runner.pid(), in.spec.Path
	s.Sandbox = &in.proc.runner.report
	if d.Name != "" {
		s.Version, s.Locality, s.Capabilities = d.Version, d.Locality.String(), d.Capabilities.Names()
	}
}

// A refusal is an error in the plugin's own words: they are the host's last
// ones, and the same in its status.
type refusal struct {
	text string
	err  error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.err }

// inItsWords takes away what only says which error it is.
func inItsWords(err error) error {
	text, cut := strings.CutPrefix(err.Error(), transport.ErrPermissionDenied.Error()+": ")
	if !cut {
		return err
	}
	return &refusal{text: text, err: err}
}
