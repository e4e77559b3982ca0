package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/transporthost/transporthost/shared/transport"
)

// background is the context of what a defect does: it has nobody to obey.
func background() context.Context { return context.Background() }

// inItsQuestions are defects in what the plugin asks and tells the host.
func inItsQuestions() map[string]func() int {
	serving := func(serve func(r *raw)) func() int {
		return func() int { return (&raw{serve: serve}).main() }
	}
	// flood asks without end, in as many goroutines as it likes.
	flood := func(r *raw) {
		for range 1000 {
			go func() {
				for {
					// The wait is what a flood cannot afford.
					ctx, cancel := context.WithTimeout(background(), time.Millisecond)
					_, _ = r.server.LoadState(ctx, "x")
					cancel()
				}
			}()
		}
	}
	return map[string]func() int{
		"floods-questions": serving(flood),
		"floods-questions-and-reads-no-answer": func() int {
			return (&raw{serve: flood, options: []grpc.ServerOption{grpc.ChainStreamInterceptor(
				func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
					if strings.HasSuffix(info.FullMethod, "/HostCalls") {
						s = deaf{s}
					}
					return handler(srv, s)
				})}}).main()
		},
		"asks-for-everything": serving(func(r *raw) {
			refused := 0
			for _, ask := range []func() error{
				func() error { _, err := r.server.Credentials(background()); return err },
				func() error { _, err := r.server.RecoverUnauthorized(background(), 1); return err },
				func() error { _, err := r.server.ClientName(background()); return err },
				func() error { _, err := r.server.LoadState(background(), "x"); return err },
				func() error { return r.server.SaveState(background(), "x", make([]byte, 1<<20)) },
				func() error { return r.server.SaveState(background(), "x", nil) },
				func() error { return r.server.DeleteState(background(), "x") },
			} {
				if err := ask(); errors.Is(err, transport.ErrNotGranted) || errors.Is(err, transport.ErrTooLarge) {
					refused++
				}
			}
			r.server.ReportStatus(transport.Status{State: "greedy", Ready: true, Cause: fmt.Sprintf("%d of 7 were refused", refused)})
		}),
		"lies-in-its-status": serving(func(r *raw) {
			details := map[string]string{}
			for i := range 1000 {
				details[fmt.Sprint("\x1b[2J", i)] = strings.Repeat("\x1b]0;mine\x07", 1<<10)
			}
			r.server.ReportStatus(transport.Status{
				State: "\x1b[2J\x1b]0;mine\x07\nwebsocket  ready", Cause: "\u202eread from the right\u2028" + strings.Repeat("\x1b[31m\r\n", 1<<20),
				Remedy: "run: \x1b[8mrm -rf ~\x1b[0m", Details: details,
			})
		}),
		"floods-its-status": serving(func(r *raw) {
			for i := 0; ; i++ {
				r.server.ReportStatus(transport.Status{State: fmt.Sprint("state ", i), Cause: fmt.Sprint("cause ", i)})
			}
		}),
	}
}

// A deaf stream sends and reads nothing.
type deaf struct{ grpc.ServerStream }

func (d deaf) RecvMsg(any) error {
	<-d.Context().Done()
	return d.Context().Err()
}
