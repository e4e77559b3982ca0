//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/tests/relay/backend"
)

// killApplication kills the one process that all peers share. It is stopped for
// a moment first, so that there is something in flight.
func killApplication() action {
	const name = killName + string(application)
	return action{name: name, on: application, touches: []part{application}, weight: 3, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			pid, err := l.applicationProcess()
			if err != nil {
				return err
			}
			before, err := l.host.asked.Status(ctx)
			if err != nil {
				return err
			}
			l.known.appMoves(true, 0)
			if err := sendSignal(pid, syscall.SIGSTOP); err != nil {
				return err
			}
			pause(ctx, time.Duration(random.IntN(400))*time.Millisecond)
			began := time.Now()
			if err := sendSignal(pid, syscall.SIGKILL); err != nil {
				return err
			}
			if _, err := l.awaitHost(ctx, recoveryTimeout, func(s host.Status) bool {
				return s.Application.Ready && s.Application.Restarts == before.Application.Restarts+1
			}); err != nil {
				return fmt.Errorf("waiting for the application's next process: %w", err)
			}
			l.record.recovered(name, time.Since(began))
			l.known.appMoves(false, 1)
			// Everybody's requests from before are answered, with a result or with
			// an error.
			return l.settle(ctx, transports[:]...)
		}}
}

// applicationProcess finds the application among the host's processes.
func (l *laboratory) applicationProcess() (pid int, err error) {
	for _, p := range family(l.host.pid()) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err == nil && bytes.HasSuffix(line, []byte("\x00"+applicationCommand+"\x00")) {
			return p.pid, nil
		}
	}
	return 0, errors.New("the host has no process of the application")
}

const (
	// burstStatements of burstBytes are more than the pipes between the terminal
	// and its user hold.
	burstStatements = 30
	burstBytes      = 20 << 10
)

// stdoutFull lets the user at the terminal read nothing for a while.
func stdoutFull() action {
	return action{name: "nobody reads stdout", on: stdio, touches: []part{stdio}, weight: 2,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			l.terminal.reader.close()
			defer l.terminal.reader.open()
			l.terminal.burst(burstStatements, burstBytes)
			pause(ctx, 500*time.Millisecond+time.Duration(random.IntN(2500))*time.Millisecond)
			return nil
		}}
}

// killUnread kills the plugin of the terminal while nobody reads stdout: what
// has reached the pipe behind it must not be said again, and the rest must be.
func killUnread() action {
	const name = "kill -9 while nobody reads stdout"
	return action{name: name, on: stdio, touches: []part{stdio}, weight: 2, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			l.terminal.reader.close()
			defer l.terminal.reader.open()
			l.terminal.burst(burstStatements, burstBytes)
			pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
			change := l.begin(stdio, 1, killedCause)
			began := time.Now()
			if err := sendSignal(change.before.PID, syscall.SIGKILL); err != nil {
				return err
			}
			if err := l.recover(ctx, name, change, began); err != nil {
				return err
			}
			pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
			return nil
		}}
}

const (
	// floodStatements of floodBytes have many frames on their way at a time.
	floodStatements = 400
	floodBytes      = 200
	// phoneStatements are as many as the window of a connection takes: what is
	// beyond it may be refused.
	phoneStatements = 60
)

// killFlooded kills a plugin in the middle of many frames: each was brought by
// that process or will be by the next, never by both.
func killFlooded(p part) action {
	name := "kill -9 in a flood: " + string(p)
	return action{name: name, on: p, touches: []part{p}, weight: 2, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			change := l.begin(p, 1, killedCause)
			later := time.Duration(random.IntN(40)) * time.Millisecond
			var flood sync.WaitGroup
			flood.Go(func() { l.flood(p) })
			pause(ctx, later)
			began := time.Now()
			err := sendSignal(change.before.PID, syscall.SIGKILL)
			if err == nil {
				err = l.recover(ctx, name, change, began)
			}
			flood.Wait()
			return err
		}}
}

// flood lets the peers of a transport say much at once.
func (l *laboratory) flood(p part) {
	if p == stdio {
		l.terminal.burst(floodStatements, floodBytes)
		return
	}
	for range phoneStatements {
		for _, p := range l.phones {
			p.say(time.Now())
		}
	}
}

// killUnlinked kills remote control while the relay takes nothing from it, or
// nobody: everything waits for its next process.
func killUnlinked() action {
	const name = "kill -9 while the relay is gone"
	return action{name: name, on: remotecontrol, touches: []part{remotecontrol}, weight: 2, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			change := l.begin(remotecontrol, 1, killedCause)
			if random.IntN(2) == 0 {
				l.relay.StopReading(time.Minute)
			} else {
				l.relay.AnswerAlways(backend.EndpointUpgrade, backend.Answer{Drop: true})
				l.relay.Drop()
			}
			defer l.relay.Heal()
			pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
			if err := sendSignal(change.before.PID, syscall.SIGKILL); err != nil {
				return err
			}
			if _, err := l.await(ctx, remotecontrol, recoveryTimeout, func(s host.TransportStatus) bool {
				return s.PID != 0 && s.PID != change.before.PID
			}); err != nil {
				return err
			}
			pause(ctx, time.Duration(random.IntN(300))*time.Millisecond)
			l.relay.Heal()
			return l.recover(ctx, name, change, time.Now())
		}}
}

// relayActions break what lies between the plugin and the relay.
func relayActions() []action {
	refuse := func(name string, answer backend.Answer) action {
		return relayAction(name, func(ctx context.Context, l *laboratory, random *rand.Rand) {
			l.relay.AnswerAlways(backend.EndpointUpgrade, answer)
			l.relay.Drop()
			pause(ctx, time.Duration(300+random.IntN(1200))*time.Millisecond)
			l.relay.Heal()
		})
	}
	return []action{
		relayAction("relay: drop the socket", func(_ context.Context, l *laboratory, _ *rand.Rand) { l.relay.Drop() }),
		relayAction("relay: close the socket", func(_ context.Context, l *laboratory, _ *rand.Rand) { l.relay.CloseLinks(1012, "restarting") }),
		relayAction("relay: drop in the middle", func(ctx context.Context, l *laboratory, random *rand.Rand) {
			l.relay.DropAfter(1 + random.IntN(40))
			for l.relay.DropsLeft() > 0 && pause(ctx, pollInterval) {
			}
		}),
		relayAction("relay: read nothing", func(ctx context.Context, l *laboratory, random *rand.Rand) {
			l.relay.StopReading(time.Minute)
			pause(ctx, time.Duration(300+random.IntN(2000))*time.Millisecond)
			l.relay.Heal()
		}),
		refuse("relay: refuse", backend.Answer{Drop: true}),
		refuse("relay: 503", backend.Overloaded(503, time.Second)),
	}
}

// patience is how long a person waits for the next attempt of remote control:
// many faults in a row make its delays long. Then it is switched off and on.
const patience = 3 * time.Second

func relayAction(name string, breakIt func(ctx context.Context, l *laboratory, random *rand.Rand)) action {
	return action{name: name, on: remotecontrol, touches: []part{remotecontrol}, weight: 1,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			before := l.known.begin(remotecontrol, staying(l.known.plugin(remotecontrol)))
			breakIt(ctx, l, random)
			return l.reconnected(ctx, before)
		}}
}

// reconnected waits until remote control is connected, by itself or with a
// person's help. Its process must be the same.
func (l *laboratory) reconnected(ctx context.Context, before host.TransportStatus) error {
	// A link that the relay has ended may not be noticed yet.
	linked := func(s host.TransportStatus) bool { return isServing(remotecontrol)(s) && l.linked() }
	s, err := l.await(ctx, remotecontrol, patience, linked)
	if err != nil && ctx.Err() == nil {
		l.record.event("a person switches remote control off and on: %v", err)
		for _, on := range []bool{false, true} {
			if err := l.host.asked.SetTransportEnabled(ctx, string(remotecontrol), on); err != nil {
				return fmt.Errorf("switching remote control: %w", err)
			}
		}
		s, err = l.await(ctx, remotecontrol, recoveryTimeout, linked)
	}
	if err != nil {
		return err
	}
	l.known.settle(remotecontrol, s)
	return staying(before)(s)
}

// linked reports whether the relay has a link.
func (l *laboratory) linked() bool {
	all := l.relay.Connects()
	return len(all) > 0 && all[len(all)-1].Ended.IsZero()
}

// loginActions change the account's credentials.
func loginActions() []action {
	login := func(name string, touches []part, change func(ctx context.Context, l *laboratory) error) action {
		return action{name: name, on: remotecontrol, touches: touches, weight: 1,
			do: func(ctx context.Context, l *laboratory, _ *rand.Rand) error {
				before := l.known.begin(remotecontrol, staying(l.known.plugin(remotecontrol)))
				links := len(l.relay.Connects())
				if err := change(ctx, l); err != nil {
					return err
				}
				if touches == nil && len(l.relay.Connects()) != links {
					return errors.New("the relay has a new link, although nothing has changed")
				}
				return l.reconnected(ctx, before)
			}}
	}
	return []action{
		login("auth.json: the same again", nil, func(ctx context.Context, l *laboratory) error {
			return l.rewriteLogin(ctx)
		}),
		login("auth.json: a new token", []part{remotecontrol}, func(ctx context.Context, l *laboratory) error {
			return l.generations(ctx, 1, "", func() error {
				account, err := l.relay.RotateAccess("")
				if err != nil {
					return err
				}
				return backend.WriteAuthFile(l.dirs.login(), backend.AuthChatGPT, account)
			})
		}),
		login("auth.json: away for a while", []part{remotecontrol}, func(ctx context.Context, l *laboratory) error {
			kept, err := os.ReadFile(l.dirs.login())
			if err != nil {
				return fmt.Errorf("reading the login: %w", err)
			}
			if err := l.generations(ctx, 1, "no such file", func() error { return os.Remove(l.dirs.login()) }); err != nil {
				return err
			}
			pause(ctx, 500*time.Millisecond)
			return l.generations(ctx, 1, "", func() error { return writeLogin(l.dirs.login(), kept) })
		}),
	}
}

// rewriteLogin writes the login as it is, which is no change.
func (l *laboratory) rewriteLogin(ctx context.Context) error {
	content, err := os.ReadFile(l.dirs.login())
	if err != nil {
		return fmt.Errorf("reading the login: %w", err)
	}
	before, err := l.host.asked.Credentials(ctx)
	if err != nil {
		return err
	}
	if err := writeLogin(l.dirs.login(), content); err != nil {
		return err
	}
	if changed, err := l.host.asked.ReloadCredentials(ctx); err != nil || changed {
		return fmt.Errorf("reading the same login again: changed is %v, %w", changed, err)
	}
	after, err := l.host.asked.Credentials(ctx)
	if err == nil && after.Generation != before.Generation {
		err = fmt.Errorf("the same login again is generation %d, want %d still", after.Generation, before.Generation)
	}
	return err
}

// writeLogin replaces a file in one step.
func writeLogin(path string, content []byte) error {
	next := filepath.Join(filepath.Dir(path), "next-auth.json")
	err := os.WriteFile(next, content, 0o600)
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return fmt.Errorf("writing the login: %w", err)
	}
	return nil
}

// generations makes a change of the login, and waits until the host has seen
// it, as so many generations, with a problem or without.
func (l *laboratory) generations(ctx context.Context, n uint64, problem string, change func() error) error {
	before, err := l.host.asked.Credentials(ctx)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return fmt.Errorf("changing the login: %w", err)
	}
	for deadline := time.Now().Add(recoveryTimeout); ; {
		now, err := l.host.asked.Credentials(ctx)
		if err != nil {
			return err
		}
		if now.Generation == before.Generation+n && (now.Problem == "") == (problem == "") {
			return nil
		}
		if now.Generation > before.Generation+n || time.Now().After(deadline) {
			return fmt.Errorf("the host's credentials are generation %d with problem %q, want %d and %q", now.Generation, now.Problem, before.Generation+n, problem)
		}
		if !pause(ctx, pollInterval) {
			return context.Cause(ctx)
		}
	}
}
