package application

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/childproc"
	"github.com/transporthost/transporthost/shared/transport"
)

// NewExec makes the application that runs one process of a command per
// connection. starter must run while it does.
func NewExec(c Command, starter *childproc.Starter, log hclog.Logger) (*PerConnection, error) {
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	a := newPerConnection("per-connection", c.name(), log)
	a.frame = func(dst, p []byte) []byte { return transport.AppendFrame(dst, p, c.Framing) }
	a.connect = func(ctx context.Context) (upstream, error) {
		ch, err := startChild(ctx, starter, c, log)
		if err != nil {
			return nil, err
		}
		return &process{ch, transport.NewFrameReader(ch.stdout, c.Framing, c.MaxMessageBytes)}, nil
	}
	return a, nil
}

// A process is a child as an [upstream].
type process struct {
	*child
	out *transport.FrameReader
}

var _ upstream = (*process)(nil)

func (p *process) tend() {
	var work sync.WaitGroup
	work.Go(p.wait)
	work.Go(p.logStderr)
	work.Wait()
}

func (p *process) write(frames []byte) error {
	_, err := p.stdin.Write(frames)
	return err
}

func (p *process) next() ([]byte, error)  { return p.out.Next() }
func (p *process) drain()                 { _, _ = io.Copy(io.Discard, p.stdout) }
func (p *process) finish()                { _ = p.stdin.Close() }
func (p *process) ended() <-chan struct{} { return p.exited }
func (p *process) deaf(error) string {
	return fmt.Sprintf("application %q closed its stdin", p.command.name())
}
func (p *process) ending() (string, bool) { return p.child.ending(), p.clean() }
func (p *process) release()               { p.closePipes() }
func (p *process) logger() hclog.Logger   { return p.log }
