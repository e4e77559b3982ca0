package supervisor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/transporthost/transporthost/shared/transport"
)

// start introduces host and process to each other. late says that the process
// was told of Enabled what is no longer wanted.
func (p *Plugin) start(ctx context.Context, n int, proc *process, listening []*os.File, attachment Attachment) (late bool, err error) {
	// A process that dies meanwhile ends the calls: gRPC sees it at once.
	c, cancel := context.WithTimeout(ctx, transport.DescribeTimeout)
	defer cancel()
	d, err := proc.link.Describe(c)
	if err != nil {
		return false, proc.whyGone(fmt.Errorf("describing plugin %q: %w", p.spec.Plugin, err))
	}
	config, err := p.opts.Check(p.spec, d)
	if err != nil {
		return false, fmt.Errorf("%w: %w", transport.ErrInvalidConfig, err)
	}
	p.mu.Lock()
	p.caps, p.known = d.Capabilities, true
	p.mu.Unlock()
	p.update(func(s *Status) {
		s.Version, s.Locality, s.Capabilities = d.Version, d.Locality.String(), d.Capabilities.Names()
	})
	params := transport.StartParams{
		Instance: p.spec.Instance, Incarnation: n, Config: config,
		AuthStrictness: p.opts.Strictness(ctx, p.spec.Instance, d.Locality), MaxMessageBytes: p.spec.MaxMessageBytes,
	}
	p.mu.Lock()
	params.Enabled = p.enabled
	p.mu.Unlock()
	if d.Capabilities.Resume {
		params.Resume = p.opts.Sessions.Resumable(p.spec.Instance)
	}
	fd := 3 // the first of ExtraFiles
	for i := range listening {
		params.Inherited = append(params.Inherited, transport.Inherited{
			Name: "listen:" + strconv.Itoa(i), FD: fd, URL: p.spec.Listeners.URLs()[i],
		})
		fd++
	}
	if p.spec.Terminal != nil {
		params.Inherited = append(params.Inherited,
			transport.Inherited{Name: "stdin", FD: fd}, transport.Inherited{Name: "stdout", FD: fd + 1})
	}
	c, cancelStart := context.WithTimeout(ctx, transport.StartTimeout)
	defer cancelStart()
	result, err := proc.link.Start(c, params)
	if err != nil {
		if refused(err) {
			return false, inItsWords(err)
		}
		return false, proc.whyGone(fmt.Errorf("starting plugin %q: %w", p.spec.Plugin, err))
	}
	attachment.Started(result.Adopted)
	// Before the state: who sees that it is ready can tell it something.
	p.mu.Lock()
	p.link = proc.link
	late = p.enabled != params.Enabled
	p.mu.Unlock()
	p.update(func(s *Status) {
		s.Addresses, s.Remedy = result.Addresses, ""
		p.appearLocked(s)
	})
	return late, nil
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

// whyGone prefers how a process ended to the error that followed from it.
func (proc *process) whyGone(err error) error {
	if proc.wait(deathGrace) {
		if exit := proc.runner.exitError(); exit != nil {
			return exit
		}
		return fmt.Errorf("exited with status 0: %w", err)
	}
	return err
}

// deathGrace is how far the end of a stream may be ahead of its process's.
const deathGrace = 200 * time.Millisecond
