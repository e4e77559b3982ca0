package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/transporthost/transporthost/tests/load"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// remoteConfig serves virtual clients, and a websocket, whose address tells
// that the host is ready.
const remoteConfig = `application { builtin = "echo" }
credentials { file = %q }
state { dir = %q }
transport "websocket" { listen = ["ws://127.0.0.1:0"] }
transport "remotecontrol" {
  url      = %q
  protocol = %d
}
`

// A remoteHost is a host behind a relay, each a process of its own.
type remoteHost struct {
	*server
	relay *server
}

func (b *laboratory) startRemoteHost(ctx context.Context, profile backend.Profile) (*remoteHost, error) {
	folder, err := newState()
	if err != nil {
		return nil, err
	}
	login := filepath.Join(folder, "auth.json")
	h := &remoteHost{}
	if h.relay, err = startServer(ctx, folder, b.self, "relay", strconv.Itoa(int(profile)), login); err != nil {
		return nil, err
	}
	url := "http" + h.relay.url[len("ws"):] + backend.BasePath
	if h.server, err = b.startBehind(ctx, profile, login, url); err != nil {
		return nil, errors.Join(err, h.relay.stop())
	}
	return h, nil
}

func (b *laboratory) startBehind(ctx context.Context, profile backend.Profile, login, url string) (*server, error) {
	state, err := newState()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(state, "host.hcl")
	err = os.WriteFile(config, fmt.Appendf(nil, remoteConfig, login, filepath.Join(state, "state"), url, profile), 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("writing the config of a host: %w", err), os.RemoveAll(state))
	}
	return startServer(ctx, state, b.host, "run", "--runtime-dir", filepath.Join(state, "run"), "--config", config)
}

// stop ends the host, then the relay, which fails if the host broke the
// protocol.
func (h *remoteHost) stop() error { return errors.Join(h.server.stop(), h.relay.stop()) }

// fairnessTime is how long one measurement takes at least: some messages of
// 64 MiB come and go meanwhile, and every stage of them counts.
const fairnessTime = 8 * time.Second

// fairness compares the latency of one virtual client alone with that beside
// one that never acknowledges and one that sends messages of 64 MiB.
func (b *laboratory) fairness(ctx context.Context, r row) ([]line, error) {
	var alone, beside, ratios []float64
	for i := range b.rounds {
		var p99 [2]time.Duration // alone, beside the others
		for turn := range 2 {
			which := (turn + i) % 2
			var err error
			if p99[which], err = b.fairnessOnce(ctx, r.profile, which == 1); err != nil {
				return nil, err
			}
		}
		alone, beside = append(alone, microseconds(p99[0])), append(beside, microseconds(p99[1]))
		ratios = append(ratios, ratio(microseconds(p99[1]), microseconds(p99[0])))
	}
	what, floor := "p99 of a virtual client beside two greedy ones", fairnessFloor
	if r.profile == backend.Profile2 {
		// A frame of 64 MiB occupies the wire: no host can do anything about that.
		what, floor.atMost = what+", whole frames", 0
	}
	return []line{{what: what, host: fmt.Sprintf("%.0f µs", median(beside)),
		baseline: fmt.Sprintf("%.0f µs", median(alone)), value: median(ratios), unit: "x", floor: floor}}, nil
}

func (b *laboratory) fairnessOnce(ctx context.Context, profile backend.Profile, greedy bool) (p99 time.Duration, err error) {
	host, err := b.startRemoteHost(ctx, profile)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err = errors.Join(err, host.stop()); err == nil && greedy {
			fmt.Fprintf(b.log, "    beside it, %s\n", host.relay.tail.lastLine())
		}
	}()
	socket, err := load.Dial(ctx, host.relay.url+backend.ControllerPath+"?client=measured", nil, 4<<10)
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	unblock := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer unblock()
	if err := call(socket, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":"measured"}`, `{"jsonrpc":"2.0","id":0,"result":"measured"}`); err != nil {
		return 0, fmt.Errorf("%w; the host printed:\n%s", err, host.tail)
	}
	if greedy {
		if err := startGreedy(ctx, host.relay.url); err != nil {
			return 0, fmt.Errorf("%w; the host printed:\n%s", err, host.tail)
		}
	}
	p99, err = b.latency(socket)
	if err != nil {
		return 0, fmt.Errorf("%w; the host printed:\n%s", err, host.tail)
	}
	return p99, nil
}

// latency asks one small request after the other.
func (b *laboratory) latency(socket *load.Socket) (p99 time.Duration, err error) {
	var took []time.Duration
	for end := time.Now().Add(max(b.duration, fairnessTime)); time.Now().Before(end); {
		n := len(took) + 1
		request := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"echo","params":"%0100d"}`, n, n)
		began := time.Now()
		err := call(socket, request, fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":"%0100d"}`, n, n))
		took = append(took, time.Since(began))
		if err != nil {
			return 0, err
		}
	}
	slices.Sort(took)
	return took[len(took)*99/100], nil
}

func call(socket *load.Socket, request, want string) error {
	if err := socket.Write(load.AppendFrame(nil, []byte(request))); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	answer, err := socket.Next()
	if err != nil {
		return fmt.Errorf("waiting for the answer: %w", err)
	}
	if !bytes.Equal(answer, []byte(want)) {
		return fmt.Errorf("got %.200s, want %s", answer, want)
	}
	return nil
}
