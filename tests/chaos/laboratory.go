//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// What peers send a second, all of one transport together: far from what the
// machine can do, so that a delay is somebody's fault.
const (
	terminalRate = 50.0
	socketRate   = 100.0
	phoneRate    = 60.0

	socketPeers = 4
	phones      = 3
)

// Times of the host under test that are shorter than usual, so that much
// happens in a short run.
const (
	probeInterval = 250 * time.Millisecond
	probeTimeout  = 2 * time.Second
	healthyAfter  = 3 * time.Second
	retireTimeout = 8 * time.Second
)

// maxRetiring is how many replaced processes of a transport the host keeps for
// their sockets; the oldest ones of more have had their time.
const maxRetiring = 2

const configuration = `application {
  command = [%q, %q]
  mode    = "shared"
}
supervision {
  probe_interval = %q
  probe_timeout  = %q
  healthy_after  = %q
}
limits { retire_timeout = %q }
credentials {
  file      = %q
  token_url = %q
}
state { dir = %q }
transport "stdio" {}
transport "websocket" {
  listen = ["ws://127.0.0.1:0"]
}
transport "remotecontrol" { url = %q }
`

// settleTimeout is how long what was sent may wait for its answer once nothing
// is touched any more.
const settleTimeout = 15 * time.Second

// pollInterval is how often the status is asked while something is awaited.
const pollInterval = 10 * time.Millisecond

// A laboratory is one host with all its peers.
type laboratory struct {
	record *record
	bin    string // the folder with the programs
	known  *knowledge
	census *census
	dirs   dirs
	host   *hostProcess
	relay  *backend.Backend

	terminal *terminal
	sockets  []*socketPeer
	visitor  *socketPeer
	phones   []*phone
	quiet    gate // closed while nobody says anything

	relayEnd context.CancelFunc
	relayed  chan error
	talking  sync.WaitGroup
	silence  context.CancelFunc // ends the peers
}

// open makes the folders, the relay and the host.
func (l *laboratory) open(ctx context.Context, program, self string) (err error) {
	l.bin = filepath.Dir(program)
	if l.dirs.root, err = os.MkdirTemp("", "chaos"); err != nil {
		return fmt.Errorf("making a folder for the run: %w", err)
	}
	for _, dir := range []string{l.dirs.temp(), l.dirs.plugins()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("making a folder for the run: %w", err)
		}
	}
	for _, t := range transports {
		if err := installPlugin(l.bin, l.dirs, t, ""); err != nil {
			return err
		}
	}
	if l.relay, err = backend.New(backend.Options{}); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listening for the relay: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // the host is stopped before it
	l.relayEnd, l.relayed = end, make(chan error, 1)
	go func() { l.relayed <- l.relay.Serve(life, listener) }()
	account, err := l.relay.Account("")
	if err != nil {
		return err
	}
	if err := backend.WriteAuthFile(l.dirs.login(), backend.AuthChatGPT, account); err != nil {
		return err
	}
	url := "http://" + listener.Addr().String()
	text := fmt.Sprintf(configuration, self, applicationCommand, probeInterval, probeTimeout, healthyAfter, retireTimeout, l.dirs.login(), url+backend.TokenPath, l.dirs.state(), url+backend.BasePath)
	if err := os.WriteFile(l.dirs.config(), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	l.host, err = startHost(ctx, program, l.dirs)
	return err
}

// isServing says that peers of a transport are served.
func isServing(p part) func(host.TransportStatus) bool {
	return func(s host.TransportStatus) bool {
		if p == remotecontrol && (s.Reported == nil || s.Reported.State != "connected") {
			return false
		}
		return s.State == "ready"
	}
}

// people lets the peers come, and talk until silence.
func (l *laboratory) people(ctx context.Context, seed uint64) error {
	ctx, l.silence = context.WithCancel(context.WithoutCancel(ctx))
	l.terminal = &terminal{talk: newConversation("terminal", stdio, l.record, seed), stdin: l.host.stdin, stdout: bufio.NewReaderSize(l.host.stdout, 64<<10)}
	if err := l.terminal.begin(); err != nil {
		return fmt.Errorf("%w; the host said:\n%s", err, l.host.said())
	}
	l.talking.Go(func() {
		if err := l.terminal.read(ctx); err != nil {
			l.record.fail("terminal: %v", err)
		}
	})
	// Remote control waits for what the program at the terminal calls itself.
	for _, t := range transports {
		s, err := l.await(ctx, t, startTimeout, isServing(t))
		if err != nil {
			return err
		}
		l.known.settle(t, s)
	}
	for n := range phones {
		p, err := newPhone(ctx, l.relay, fmt.Sprintf("phone%d", n+1), l.record, seed+uint64(n)+10)
		if err != nil {
			return err
		}
		l.phones = append(l.phones, p)
		l.talking.Go(func() { p.read(ctx) })
	}
	for n := range socketPeers {
		p := &socketPeer{name: fmt.Sprintf("socket%d", n+1), url: l.host.address(), seed: seed + uint64(n+1)<<32, record: l.record, census: l.census}
		l.sockets = append(l.sockets, p)
		l.talking.Go(func() { p.run(ctx) })
	}
	l.visitor = &socketPeer{name: "visitor", url: l.host.address(), seed: seed + 1<<48, record: l.record, census: l.census}
	l.talking.Go(func() { l.visitor.visit(ctx, &l.quiet) })
	l.talking.Go(func() {
		pace(ctx, terminalRate, &l.quiet, func(_ int, due time.Time) { l.terminal.speak(due) })
	})
	l.talking.Go(func() {
		pace(ctx, socketRate, &l.quiet, func(n int, due time.Time) { l.sockets[n%len(l.sockets)].say(due) })
	})
	l.talking.Go(func() {
		pace(ctx, phoneRate, &l.quiet, func(n int, due time.Time) { l.phones[n%len(l.phones)].say(due) })
	})
	return l.settle(ctx, transports[:]...)
}

// await asks for the status of a plugin until ok accepts it.
func (l *laboratory) await(ctx context.Context, p part, limit time.Duration, ok func(host.TransportStatus) bool) (host.TransportStatus, error) {
	var last host.TransportStatus
	_, err := l.awaitHost(ctx, limit, func(s host.Status) bool {
		var err error
		last, err = s.Transport(string(p))
		return err == nil && ok(last)
	})
	if err != nil {
		return last, fmt.Errorf("waiting for transport %s: %w; its state is %q, incarnation %d, pid %d, cause %q, reported %+v",
			p, err, last.State, last.Incarnation, last.PID, last.Cause, last.Reported)
	}
	return last, nil
}

func (l *laboratory) awaitHost(ctx context.Context, limit time.Duration, ok func(host.Status) bool) (host.Status, error) {
	deadline := time.Now().Add(limit)
	for {
		s, err := l.host.asked.Status(ctx)
		if err == nil && ok(s) {
			return s, nil
		}
		if time.Now().After(deadline) {
			return s, errors.Join(fmt.Errorf("not within %v", limit), err)
		}
		if !pause(ctx, pollInterval) {
			return s, context.Cause(ctx)
		}
	}
}

// settle waits until everything that was due before now is answered on the
// parts given, and every peer is connected.
func (l *laboratory) settle(ctx context.Context, parts ...part) error {
	now, deadline := time.Now(), time.Now().Add(settleTimeout)
	for {
		var missing []string
		for _, p := range parts {
			if text, _ := l.record.outstanding(p, now); text != "" {
				missing = append(missing, text)
			}
			for _, s := range l.sockets {
				if p == websocket && !s.there() {
					missing = append(missing, s.name+" itself")
				}
			}
		}
		if len(missing) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("lost: %v after the last action there is no answer to %s", settleTimeout, strings.Join(missing, ", "))
		}
		if !pause(ctx, pollInterval/2) {
			return context.Cause(ctx)
		}
	}
}

// hush lets nobody say anything more, and waits until everything is answered.
func (l *laboratory) hush(ctx context.Context) error {
	l.quiet.close()
	return l.settle(ctx, transports[:]...)
}

// close ends everything. The error has what is wrong with how the host ended.
func (l *laboratory) close() error {
	if l.host == nil {
		return l.tidy()
	}
	err := l.host.stop()
	if l.silence != nil {
		l.silence()
	}
	l.talking.Wait() // the terminal reads to the end
	_, _ = io.Copy(io.Discard, l.host.stdout)
	_ = l.host.stdin.Close()
	return errors.Join(err, l.tidy())
}

// tidy ends the relay and removes the folders.
func (l *laboratory) tidy() error {
	var err error
	if l.relayEnd != nil {
		l.relayEnd()
		err = <-l.relayed
	}
	return errors.Join(err, os.RemoveAll(l.dirs.root))
}
