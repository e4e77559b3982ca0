package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/transporthost/transporthost/shared/transport"
)

// inItsCalls are defects in what the plugin answers to the host's calls.
func inItsCalls() map[string]func() int {
	hang := func(context.Context) error {
		forever()
		return nil
	}
	probed := func(answer func(context.Context) (any, error)) func() int {
		return func() int {
			return (&raw{options: []grpc.ServerOption{grpc.ChainUnaryInterceptor(
				func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
					if info.FullMethod == healthpb.Health_Check_FullMethodName {
						return answer(ctx)
					}
					return handler(ctx, req)
				})}}).main()
		}
	}
	describing := func(change func(*transport.Description)) func() int {
		return func() int {
			return (&raw{describe: func() transport.Description {
				d := description()
				change(&d)
				return d
			}}).main()
		}
	}
	starting := func(start func(context.Context, transport.StartParams) (transport.StartResult, error)) func() int {
		return func() int { return (&raw{start: start}).main() }
	}
	return map[string]func() int{
		"hangs-in-describe": describing(func(*transport.Description) { forever() }),
		"hangs-in-start": starting(func(context.Context, transport.StartParams) (transport.StartResult, error) {
			forever()
			return transport.StartResult{}, nil
		}),
		// Its answer comes, when nobody waits for it any more.
		"starts-late": starting(func(ctx context.Context, _ transport.StartParams) (transport.StartResult, error) {
			<-ctx.Done()
			time.Sleep(100 * time.Millisecond)
			return transport.StartResult{Addresses: []string{"late:"}}, nil
		}),
		"refuses": starting(func(context.Context, transport.StartParams) (transport.StartResult, error) {
			return transport.StartResult{}, fmt.Errorf("\x1b[2J\x1b]0;mine\x07the moon is full\n\nwebsocket  ready%s", strings.Repeat(" and waning", 1<<10))
		}),
		"panics-in-start": starting(func(context.Context, transport.StartParams) (transport.StartResult, error) {
			panic("the moon is new")
		}),
		"has-strange-addresses": starting(func(context.Context, transport.StartParams) (transport.StartResult, error) {
			r := transport.StartResult{}
			for range 10_000 {
				r.Addresses = append(r.Addresses, "\x1b[2J\x1b]0;mine\x07ws://127.0.0.1\nwebsocket  ready"+strings.Repeat("x", 1<<10))
			}
			return r, nil
		}),
		"adopts-what-is-not-its-own": starting(func(context.Context, transport.StartParams) (transport.StartResult, error) {
			r := transport.StartResult{}
			for i := range 1_000_000 {
				r.Adopted = append(r.Adopted, transport.ConnID(i))
			}
			return r, nil
		}),
		"hangs-in-drain": func() int { return (&raw{drain: hang}).main() },
		"hangs-in-stop":  func() int { return (&raw{stop: hang}).main() },
		"dies-in-drain": func() int {
			return (&raw{drain: func(context.Context) error {
				os.Exit(5)
				return nil
			}}).main()
		},
		"hangs-in-the-probe": probed(func(ctx context.Context) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		"says-it-is-unwell": probed(func(context.Context) (any, error) {
			return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}, nil
		}),
		"describes-at-length": describing(func(d *transport.Description) {
			d.Name, d.Version = strings.Repeat("x", 5<<20), strings.Repeat("\x1b[2J", 2<<20)
		}),
		"describes-nonsense": describing(func(d *transport.Description) {
			d.Config = []transport.ConfigKey{{Name: "\x1b[2J", Type: "banana", Required: true}, {Name: "a"}, {Name: "a"}}
		}),
		"describes-too-many-keys": describing(func(d *transport.Description) {
			for i := range 100_000 {
				d.Config = append(d.Config, transport.ConfigKey{Name: fmt.Sprint("key_", i), Type: transport.TypeString})
			}
		}),
		"has-no-locality": describing(func(d *transport.Description) { d.Locality = 0 }),
	}
}
