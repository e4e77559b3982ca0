package host

import (
	"context"
	"sync"
)

// A group is goroutines with one end. The zero value is ready to use.
type group struct {
	once   sync.Once
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// start runs f until stop, whatever becomes of ctx: only its values are used.
func (g *group) start(ctx context.Context, f func(context.Context) error) {
	g.once.Do(func() { g.ctx, g.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) })
	g.wg.Go(func() { _ = f(g.ctx) }) // it ends with the group's cause
}

// stop ends the goroutines and waits for them.
func (g *group) stop(cause error) {
	if g.cancel != nil {
		g.cancel(cause)
	}
	g.wg.Wait()
}
