package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/transporthost/transporthost/shared/rpc"
)

// How a process ended, or why it had to.

// fate is the cause of a process's exit. One that ends because the host has
// ended its link is not at fault for how it does that.
func (proc *process) fate(linkEnd chan error) error {
	select {
	case err := <-linkEnd:
		linkEnd <- err // for whoever waits for the link's end
		if _, broken := errors.AsType[*rpc.BrokenError](err); broken {
			return err
		}
	default:
	}
	if err := proc.runner.exitError(); err != nil {
		return err
	}
	return errors.New("exited with status 0")
}

// whyGone prefers how a process ended to the error that followed from it.
func (proc *process) whyGone(err error) error {
	if _, broken := errors.AsType[*rpc.BrokenError](err); broken {
		return err
	}
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

// withLink returns a context that ends with the link. done frees it, and returns
// why the link has ended, or nil if it has not.
func withLink(ctx context.Context, linkEnd chan error) (c context.Context, done func() error) {
	c, cancel := context.WithCancel(ctx)
	lost := make(chan error, 1)
	go func() {
		select {
		case err := <-linkEnd:
			linkEnd <- err // for whoever waits for the link's end
			cancel()
			lost <- err
		case <-c.Done():
			lost <- nil
		}
	}()
	return c, func() error {
		cancel()
		return <-lost
	}
}

// A hangError says that a process lives and does not answer.
type hangError struct {
	silent time.Duration
	probe  error // what came of the last probe, if anything did
}

func (e *hangError) Error() string {
	text := fmt.Sprintf("hangs: no answer to a probe for %v", e.silent.Round(100*time.Millisecond))
	if e.probe != nil && !errors.Is(e.probe, context.DeadlineExceeded) {
		text += "; the last one: " + e.probe.Error()
	}
	return text
}
