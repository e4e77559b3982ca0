//go:build linux

package main

import (
	"context"
	"time"
)

// pace calls send at fixed times, whatever became of the calls before, and says
// when each was due: a host that stops for a second makes a second's requests
// late, not one. While the gate is closed nothing is due.
func pace(ctx context.Context, rate float64, g *gate, send func(n int, due time.Time)) {
	interval := time.Duration(float64(time.Second) / rate)
	due := time.Now()
	for n := 0; ; n++ {
		if g.closed() {
			g.pass(ctx)
			due = time.Now()
		}
		due = due.Add(interval)
		if !pause(ctx, time.Until(due)) {
			return
		}
		send(n, due)
	}
}

// pause waits for d, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}
