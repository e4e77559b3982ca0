//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// personCause is how the status names a restart that somebody asked for.
const personCause = "by a person"

// upgrade puts another build of a plugin in the place of its file, and restarts
// it as a person does. Peers over WebSocket notice nothing: what they have open
// stays with the old process, and what they open is the new one's. The other
// transports' may wait for a moment.
func upgrade(p part) action {
	name := "upgrade " + string(p)
	a := action{name: name, on: p, weight: 1, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			return l.upgrade(ctx, p, name, random)
		}}
	if p != websocket {
		a.touches = []part{p}
	}
	return a
}

func (l *laboratory) upgrade(ctx context.Context, p part, name string, random *rand.Rand) error {
	stamp := fmt.Sprintf("build %016x", random.Uint64())
	if err := installPlugin(l.bin, l.dirs, p, stamp); err != nil {
		return err
	}
	change := l.beginUpgrade(p, personCause)
	began := time.Now()
	if err := l.host.asked.RestartPlugin(ctx, string(p)); err != nil {
		return fmt.Errorf("restarting transport %s: %w", p, err)
	}
	if err := l.recover(ctx, name, change, began); err != nil {
		return err
	}
	return l.runs(p, stamp)
}

// beginUpgrade makes known that a person has a process replaced.
func (l *laboratory) beginUpgrade(p part, causes ...string) transition {
	if p == websocket {
		l.record.upgraded()
	}
	change := l.begin(p, 1, causes...)
	change.states = append(change.states, "stopping")
	l.known.begin(p, change.check)
	return change
}

// runs says whether a plugin runs the build with such a stamp.
func (l *laboratory) runs(p part, stamp string) error {
	running, err := stampOf(l.known.plugin(p).PID)
	if err == nil && running != fmt.Sprintf("%*s", stampBytes, stamp) {
		err = fmt.Errorf("transport %s does not run the new build: its stamp is %q, want %q", p, running, stamp)
	}
	return err
}

// upgradeAndKill kills the old process while it is being replaced.
func upgradeAndKill(p part) action {
	name := "upgrade, and kill -9 meanwhile: " + string(p)
	return action{name: name, on: p, touches: []part{p}, weight: 1, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			stamp := fmt.Sprintf("build %016x", random.Uint64())
			if err := installPlugin(l.bin, l.dirs, p, stamp); err != nil {
				return err
			}
			change := l.beginUpgrade(p, personCause, killedCause)
			began := time.Now()
			restarted := make(chan error, 1)
			go func() { restarted <- l.host.asked.RestartPlugin(ctx, string(p)) }()
			pause(ctx, time.Duration(random.IntN(120))*time.Millisecond)
			err := sendSignal(change.before.PID, syscall.SIGKILL)
			if failed := <-restarted; failed != nil {
				return fmt.Errorf("restarting transport %s, whose process is killed meanwhile: %w", p, failed)
			}
			if err != nil {
				return err
			}
			if err := l.recover(ctx, name, change, began); err != nil {
				return err
			}
			return l.runs(p, stamp)
		}}
}

// killRetiring upgrades the transport of the sockets, and kills the process that
// retires: the new one has nothing to do with that.
func killRetiring() action {
	const name = "upgrade, and kill -9 what retires"
	return action{name: name, on: websocket, touches: []part{websocket}, weight: 1, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			old := l.known.plugin(websocket).PID
			if err := l.upgrade(ctx, websocket, name, random); err != nil {
				return err
			}
			pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
			return sendSignal(old, syscall.SIGKILL)
		}}
}
