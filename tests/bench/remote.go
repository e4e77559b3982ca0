package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/transporthost/transporthost/tests/relay/backend"
)

// remoteConfig serves virtual clients, and a websocket, whose address tells
// that the host is ready.
const remoteConfig = `application { builtin = "echo" }
credentials { file = %q }
state { dir = %q }
transport "websocket" { listen = ["ws://127.0.0.1:0"] }
transport "remotecontrol" { url = %q }
`

// A remoteHost is a host behind a relay in this process.
type remoteHost struct {
	*server
	relay *backend.Backend
	end   context.CancelFunc
	ended chan error
}

func (b *laboratory) startRemoteHost(ctx context.Context) (*remoteHost, error) {
	relay, err := backend.New(backend.Options{})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the relay: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // the host is stopped before it
	h := &remoteHost{relay: relay, end: end, ended: make(chan error, 1)}
	go func() { h.ended <- relay.Serve(life, l) }()
	if h.server, err = b.startBehind(ctx, relay, "http://"+l.Addr().String()+backend.BasePath); err != nil {
		end()
		return nil, errors.Join(err, <-h.ended)
	}
	connected, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if _, err := relay.AwaitConnect(connected, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("%w; the host printed:\n%s", err, h.tail), h.stop())
	}
	return h, nil
}

func (b *laboratory) startBehind(ctx context.Context, relay *backend.Backend, url string) (*server, error) {
	account, err := relay.Account("")
	if err != nil {
		return nil, err
	}
	state, err := newState()
	if err != nil {
		return nil, err
	}
	login, config := filepath.Join(state, "auth.json"), filepath.Join(state, "host.hcl")
	err = backend.WriteAuthFile(login, backend.AuthChatGPT, account)
	if err == nil {
		err = os.WriteFile(config, fmt.Appendf(nil, remoteConfig, login, filepath.Join(state, "state"), url), 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing the files of a host: %w", err), os.RemoveAll(state))
	}
	return startServer(ctx, state, b.host, "run", "--runtime-dir", filepath.Join(state, "run"), "--config", config)
}

// stop ends the host, then the relay, and fails if the host broke the protocol.
func (h *remoteHost) stop() error {
	err := h.server.stop()
	h.end()
	err = errors.Join(err, <-h.ended)
	if broken := h.relay.Violations(); len(broken) > 0 {
		err = errors.Join(err, fmt.Errorf("the host broke the protocol %d times, first: %v", len(broken), broken[0]))
	}
	return err
}

// begin opens a virtual client and its session.
func (h *remoteHost) begin(ctx context.Context, id string) (*backend.Client, error) {
	c, err := h.relay.Open(backend.ClientOptions{ID: id, StreamID: backend.NewStreamID()})
	if err != nil {
		return nil, err
	}
	_, err = c.Initialize(ctx, id)
	return c, err
}

const (
	hugeBytes = 64<<20 - 1<<10 // of a message, with room for what is around it
	deafCalls = 5000           // far beyond what is kept for one that never acknowledges
)

// fairness compares the latency of one virtual client alone with that beside
// one that never acknowledges and one that sends messages of 64 MiB.
func (b *laboratory) fairness(ctx context.Context, r row) ([]line, error) {
	var alone, beside, ratios []float64
	for i := range b.rounds {
		var p99 [2]time.Duration // alone, beside the others
		for turn := range 2 {
			which := (turn + i) % 2
			var err error
			if p99[which], err = b.fairnessOnce(ctx, which == 1); err != nil {
				return nil, err
			}
		}
		alone, beside = append(alone, microseconds(p99[0])), append(beside, microseconds(p99[1]))
		ratios = append(ratios, ratio(microseconds(p99[1]), microseconds(p99[0])))
	}
	return []line{{what: "p99 of a virtual client beside two greedy ones", host: fmt.Sprintf("%.0f µs", median(beside)),
		baseline: fmt.Sprintf("%.0f µs", median(alone)), value: median(ratios), unit: "x", floor: fairnessFloor}}, nil
}

func (b *laboratory) fairnessOnce(ctx context.Context, greedy bool) (p99 time.Duration, err error) {
	host, err := b.startRemoteHost(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, host.stop()) }()
	c, err := host.begin(ctx, "measured")
	if err != nil {
		return 0, err
	}
	others, stop := context.WithCancel(ctx)
	defer stop()
	var all errgroup.Group
	huge := 0
	if greedy {
		if err := host.neverAcks(ctx); err != nil {
			return 0, err
		}
		all.Go(func() error { return host.sendsHuge(others, &huge) })
	}
	p99, err = b.latency(ctx, c)
	stop()
	if err = errors.Join(err, all.Wait()); err != nil {
		return 0, fmt.Errorf("%w; the host printed:\n%s", err, host.tail)
	}
	if greedy {
		fmt.Fprintf(b.log, "    beside it, %d messages of 64 MiB were answered\n", huge)
	}
	return p99, nil
}

// neverAcks asks for more than is kept, and takes nothing.
func (h *remoteHost) neverAcks(ctx context.Context) error {
	c, err := h.begin(ctx, "deaf")
	if err != nil {
		return err
	}
	c.SetAcks(backend.AckNothing)
	for n := range deafCalls {
		if err := c.Send(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"echo","params":"%0100d"}`, n, n)); err != nil {
			return err
		}
	}
	return nil
}

// sendsHuge sends one huge request after the other until ctx ends.
func (h *remoteHost) sendsHuge(ctx context.Context, answered *int) error {
	c, err := h.begin(ctx, "huge")
	if err != nil {
		return err
	}
	// Made once: encoding it would cost the measured client's CPU.
	params := `"` + strings.Repeat("x", hugeBytes) + `"`
	request := []byte(`{"jsonrpc":"2.0","id":0,"method":"echo","params":` + params + `}`)
	for {
		if err := c.Send(request); err != nil {
			return err
		}
		m, err := c.Receive(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case len(m.Result) != len(params):
			return fmt.Errorf("a huge request is answered with %d bytes, want %d", len(m.Result), len(params))
		}
		*answered++
	}
}

// latency asks one small request after the other.
func (b *laboratory) latency(ctx context.Context, c *backend.Client) (p99 time.Duration, err error) {
	var took []time.Duration
	for end := time.Now().Add(b.duration); time.Now().Before(end); {
		params := fmt.Sprintf(`"%0100d"`, len(took))
		began := time.Now()
		result, err := c.Call(ctx, "echo", json.RawMessage(params))
		took = append(took, time.Since(began))
		if err != nil {
			return 0, err
		}
		if string(result) != params {
			return 0, fmt.Errorf("got %.200s, want %s", result, params)
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}
