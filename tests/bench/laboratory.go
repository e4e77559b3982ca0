package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/transporthost/transporthost/tests/bench/servers"
	"github.com/transporthost/transporthost/tests/load"
)

// A laboratory starts servers and loads them.
type laboratory struct {
	host     string // the program that is measured
	self     string // this program, which is the baselines too
	rounds   int
	duration time.Duration
	idle     int           // connections of the row about idle peers
	pause    time.Duration // before their memory is read
	log      io.Writer
}

func (b *laboratory) measure(ctx context.Context, r row) ([]line, error) { return r.measure(b, ctx, r) }

// An application is what the host serves.
type application string

const (
	echoApplication  application = "built-in echo"
	childApplication application = "a child for each peer"
	idleApplication  application = "built-in echo, for very many peers"
)

// idleConfig raises the limits that protect a host from very many peers.
const idleConfig = `application { builtin = "echo" }
transport "websocket" {
  listen                  = ["ws://127.0.0.1:0"]
  max_connections         = %d
  max_upgrades_per_second = 1000000
}
`

// startHost starts the host with state and sockets of its own, so that neither
// another host on the machine nor an earlier round matters.
func (b *laboratory) startHost(ctx context.Context, app application) (*server, error) {
	state, err := newState()
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--runtime-dir", filepath.Join(state, "run")}
	switch app {
	case idleApplication:
		config := filepath.Join(state, "host.hcl")
		if err := os.WriteFile(config, fmt.Appendf(nil, idleConfig, b.idle+100), 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("writing the host's config: %w", err), os.RemoveAll(state))
		}
		args = append(args, "--config", config)
	case childApplication:
		args = append(args, "--listen", "ws://127.0.0.1:0", "--", b.self, "child")
	default:
		args = append(args, "--listen", "ws://127.0.0.1:0", "--builtin", "echo")
	}
	return startServer(ctx, state, b.host, args...)
}

func (b *laboratory) startBaseline(ctx context.Context, style servers.Style) (*server, error) {
	state, err := newState()
	if err != nil {
		return nil, err
	}
	return startServer(ctx, state, b.self, "serve", string(style))
}

func newState() (string, error) {
	state, err := os.MkdirTemp("", "bench-") // short: a path of a unix socket has 108 bytes
	if err != nil {
		return "", fmt.Errorf("making a folder for a server: %w", err)
	}
	return state, nil
}

// run loads one server, and fails if an answer was wrong or missing: a fast
// server that loses messages is no result.
func (b *laboratory) run(ctx context.Context, s *server, o load.Options) (load.Result, error) {
	o.URL, o.Processes, o.Duration, o.Verify = s.url, []int{s.pid}, b.duration, true
	r, err := load.Run(ctx, o)
	if err == nil && (r.Answers == 0 || r.Errors+r.Corrupt+r.Unexpected+r.Unanswered > 0) {
		err = fmt.Errorf("%d answers, %d errors, %d corrupt, %d unexpected, %d unanswered",
			r.Answers, r.Errors, r.Corrupt, r.Unexpected, r.Unanswered)
	}
	if err != nil {
		return r, fmt.Errorf("loading the server at %s: %w; it printed:\n%s", s.url, err, s.tail)
	}
	if disturbed := r.OtherCPU.Seconds() / r.Elapsed.Seconds(); disturbed > 0.1 {
		fmt.Fprintf(b.log, "    something else used %.0f %% of a CPU during a measurement\n", disturbed*100)
	}
	return r, nil
}

// compare loads host and baseline in turn, and changes who is first.
func (b *laboratory) compare(ctx context.Context, r row) (lines []line, err error) {
	if !installed(r.baseline) {
		return []line{{what: r.name + ", which is not installed", value: math.NaN(), floor: r.numbers[0].floor, unit: r.numbers[0].unit}}, nil
	}
	host, err := b.startHost(ctx, cmp.Or(r.app, echoApplication))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.stop()) }()
	base, err := b.startBaseline(ctx, r.baseline)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, base.stop()) }()
	hosts, bases := make([]load.Result, b.rounds), make([]load.Result, b.rounds)
	for i := range b.rounds {
		for turn := range 2 {
			s, into := host, hosts
			if turn == i%2 {
				s, into = base, bases
			}
			if into[i], err = b.run(ctx, s, r.load); err != nil {
				return nil, err
			}
		}
	}
	for _, n := range r.numbers {
		lines = append(lines, n.line(r.name, hosts, bases))
	}
	return lines, nil
}

// line takes the medians of all rounds. The ratio is the median of the rounds'
// ratios: what disturbs a whole round disturbs both servers.
func (n loadNumber) line(name string, hosts, bases []load.Result) line {
	var host, base, both []float64
	for i := range hosts {
		h, b := n.of(hosts[i]), n.of(bases[i])
		host, base, both = append(host, h), append(base, b), append(both, n.both(h, b))
	}
	l := line{what: name + ": " + n.what, value: median(both), unit: n.unit, floor: n.floor}
	l.host, l.baseline = fmt.Sprintf(n.format, median(host)), fmt.Sprintf(n.format, median(base))
	return l
}

// stalled compares the throughput of peers that read with and without others
// that never do, each time with a fresh host, and the memory that those cost.
func (b *laboratory) stalled(ctx context.Context, r row) ([]line, error) {
	const peers = 5
	var without, with, ratios, memory []float64
	for i := range b.rounds {
		var results [2]load.Result // none stalled, some stalled
		for turn := range 2 {
			which := (turn + i) % 2
			o := r.load
			o.Stalled = which * peers
			var err error
			if results[which], err = b.onFreshHost(ctx, o); err != nil {
				return nil, err
			}
		}
		none, some := results[0], results[1]
		without, with = append(without, none.Throughput), append(with, some.Throughput)
		ratios = append(ratios, ratio(some.Throughput, none.Throughput))
		if some.Memory.Processes > 1 {
			// One of them is the keeper, which holds nothing of any peer.
			perPeer := float64(some.Memory.RSS-none.Memory.RSS) / peers / float64(some.Memory.Processes-1)
			memory = append(memory, perPeer/(1<<20))
		}
		fmt.Fprintf(b.log, "    stalled peers sent %.1f MiB; the host closed %d of %d\n",
			float64(some.StalledBytes)/(1<<20), some.StalledClosed, peers)
	}
	return []line{
		{what: "20 peers of 1 KiB, beside 5 that never read", host: fmt.Sprintf("%.0f/s", median(with)),
			baseline: fmt.Sprintf("%.0f/s", median(without)), value: median(ratios), unit: "x", floor: stalledThroughputFloor},
		{what: "memory per such peer and process", value: median(memory), unit: " MiB", floor: stalledMemoryFloor},
	}, nil
}

func (b *laboratory) onFreshHost(ctx context.Context, o load.Options) (r load.Result, err error) {
	host, err := b.startHost(ctx, echoApplication)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, host.stop()) }()
	return b.run(ctx, host, o)
}

// idlePeers measures what connections that do nothing cost in memory.
func (b *laboratory) idlePeers(ctx context.Context, r row) ([]line, error) {
	var host, base []float64
	for range b.rounds {
		h, err := b.startHost(ctx, idleApplication)
		if err != nil {
			return nil, err
		}
		kib, err := b.idleCost(ctx, h)
		if err = errors.Join(err, h.stop()); err != nil {
			return nil, err
		}
		p, err := b.startBaseline(ctx, servers.Plain)
		if err != nil {
			return nil, err
		}
		plain, err := b.idleCost(ctx, p)
		if err = errors.Join(err, p.stop()); err != nil {
			return nil, err
		}
		host, base = append(host, kib), append(base, plain)
	}
	return []line{{what: fmt.Sprintf("memory per peer of %d idle ones", b.idle), host: fmt.Sprintf("%.1f KiB", median(host)),
		baseline: fmt.Sprintf("%.1f KiB", median(base)), value: median(host), unit: " KiB", floor: idleMemoryFloor}}, nil
}

func (b *laboratory) idleCost(ctx context.Context, s *server) (kib float64, err error) {
	before, err := load.ReadMemory(s.pid)
	if err != nil {
		return 0, err
	}
	peers, err := load.OpenIdle(ctx, s.url, b.idle)
	if err != nil {
		return 0, err
	}
	defer peers.Close()
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(b.pause):
	}
	after, err := load.ReadMemory(s.pid)
	if err != nil {
		return 0, err
	}
	if alive := peers.Alive(); alive != b.idle {
		return 0, fmt.Errorf("only %d of %d idle peers are still connected; the server printed:\n%s", alive, b.idle, s.tail)
	}
	if after.Processes == 0 {
		return math.NaN(), nil
	}
	return float64(after.PSS-before.PSS) / 1024 / float64(b.idle), nil
}

// killed measures how long no peer is served after the plugin was killed. Every
// round has a fresh host, because a host holds back a plugin that dies often.
func (b *laboratory) killed(ctx context.Context, r row) ([]line, error) {
	var times []float64
	for range b.rounds {
		took, err := b.killOnce(ctx)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	return []line{{what: "SIGKILL of the plugin to the next answer", value: median(times), unit: " ms", floor: killedFloor}}, nil
}

func (b *laboratory) killOnce(ctx context.Context) (ms float64, err error) {
	host, err := b.startHost(ctx, echoApplication)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, host.stop()) }()
	if err := firstAnswer(ctx, host.url); err != nil {
		return 0, err
	}
	plugins := host.plugins()
	if len(plugins) == 0 {
		return math.NaN(), nil // no /proc
	}
	for _, pid := range plugins {
		process, err := os.FindProcess(pid)
		if err != nil {
			return 0, fmt.Errorf("finding the plugin: %w", err)
		}
		if err := process.Kill(); err != nil {
			return 0, fmt.Errorf("killing the plugin: %w", err)
		}
	}
	began := time.Now()
	if err := firstAnswer(ctx, host.url); err != nil {
		return 0, fmt.Errorf("after the plugin was killed: %w; the host printed:\n%s", err, host.tail)
	}
	return milliseconds(time.Since(began)), nil
}

// started measures from the start of the process to the first answer.
func (b *laboratory) started(ctx context.Context, r row) ([]line, error) {
	var times []float64
	for range b.rounds {
		host, err := b.startHost(ctx, echoApplication)
		if err != nil {
			return nil, err
		}
		err = firstAnswer(ctx, host.url)
		took := milliseconds(time.Since(host.began))
		if err = errors.Join(err, host.stop()); err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	return []line{{what: "start of the host to the first answer", value: median(times), unit: " ms", floor: startedFloor}}, nil
}

// firstAnswer connects again and again until one request has its answer.
func firstAnswer(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := askOnce(ctx, url)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(time.Millisecond):
		}
	}
}

func askOnce(ctx context.Context, url string) error {
	socket, err := load.Dial(ctx, url, nil, 1<<10)
	if err != nil {
		return err
	}
	defer socket.Close()
	unblock := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer unblock()
	request := `{"jsonrpc":"2.0","id":1,"method":"echo","params":{}}`
	if err := socket.Write(load.AppendFrame(nil, []byte(request))); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	if _, err := socket.Next(); err != nil {
		return fmt.Errorf("waiting for the answer: %w", err)
	}
	return nil
}
