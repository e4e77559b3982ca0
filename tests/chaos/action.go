//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/transporthost/transporthost/host"
)

// An action is something that goes wrong, or that a person does.
type action struct {
	name     string
	on       part   // nobody else does anything to it meanwhile
	touches  []part // whose peers may notice
	weight   int    // how often it is chosen, beside others
	replaces bool   // ends the process of on, which must have run for healthyAfter: its failures before are forgiven
	do       func(ctx context.Context, l *laboratory, random *rand.Rand) error
}

// recoveryTimeout is how long a plugin may take to come back, whatever was done
// to it. How long it does take is judged at the end, over all times.
const recoveryTimeout = 15 * time.Second

// allActions is everything that may happen.
func allActions() []action {
	all := []action{killApplication(), stdoutFull(), killUnread(), killFlooded(stdio), killFlooded(remotecontrol), killUnlinked()}
	for _, t := range transports {
		all = append(all, kill(t), killAgain(t), hang(t), hold(t), starve(t), upgrade(t), upgradeAndKill(t))
	}
	all = append(all, crashLoop(), killRetiring())
	all = append(all, relayActions()...)
	return append(all, loginActions()...)
}

// kill is the crash of a plugin.
func kill(p part) action {
	name := killName + string(p)
	return action{name: name, on: p, touches: []part{p}, weight: 4, replaces: true,
		do: func(ctx context.Context, l *laboratory, _ *rand.Rand) error {
			change := l.begin(p, 1, killedCause)
			began := time.Now()
			if err := sendSignal(change.before.PID, syscall.SIGKILL); err != nil {
				return err
			}
			return l.recover(ctx, name, change, began)
		}}
}

// killName begins the names of what must be back soon.
const killName = "kill -9 "

// killedCause is how the status names the end of a plugin that we killed.
const killedCause = "killed by signal 9 (killed)"

// begin makes a transition known.
func (l *laboratory) begin(p part, times int, causes ...string) transition {
	t := replacing(p, l.known.plugin(p), times, causes...)
	l.known.begin(p, t.check)
	return t
}

// recover waits until a transition has arrived, and enters how long that took.
func (l *laboratory) recover(ctx context.Context, name string, t transition, began time.Time) error {
	serving := isServing(t.part)
	s, err := l.await(ctx, t.part, recoveryTimeout, func(s host.TransportStatus) bool {
		return serving(s) && s.PID != t.before.PID && s.Restarts > t.before.Restarts
	})
	if err != nil {
		return err
	}
	l.record.recovered(name, time.Since(began))
	l.known.settle(t.part, s)
	if err := t.arrived(s); err != nil {
		return fmt.Errorf("the status disagrees: transport %s: %w", t.part, err)
	}
	return nil
}

// killAgain kills a plugin, and its next process while that starts, or soon
// after: resumption must survive that too.
func killAgain(p part) action {
	name := "kill -9 twice: " + string(p)
	return action{name: name, on: p, touches: []part{p}, weight: 2, replaces: true,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			change := l.begin(p, 2, killedCause)
			later := time.Duration(random.IntN(150)) * time.Millisecond
			if err := sendSignal(change.before.PID, syscall.SIGKILL); err != nil {
				return err
			}
			next, err := l.await(ctx, p, recoveryTimeout, func(s host.TransportStatus) bool { return s.PID != 0 && s.PID != change.before.PID })
			if err != nil {
				return err
			}
			pause(ctx, later)
			began := time.Now()
			if err := sendSignal(next.PID, syscall.SIGKILL); err != nil {
				return err
			}
			serving := isServing(p)
			if _, err := l.await(ctx, p, recoveryTimeout, func(s host.TransportStatus) bool {
				return serving(s) && s.Restarts == change.before.Restarts+2
			}); err != nil {
				return err
			}
			return l.recover(ctx, name, change, began)
		}}
}

// hang stops a plugin until the host has found that it hangs.
func hang(p part) action {
	name := hangName + string(p)
	return action{name: name, on: p, touches: []part{p}, weight: 1, replaces: true,
		do: func(ctx context.Context, l *laboratory, _ *rand.Rand) error {
			change := l.begin(p, 1, "hangs: no answer to a probe")
			began := time.Now()
			if err := sendSignal(change.before.PID, syscall.SIGSTOP); err != nil {
				return err
			}
			return l.recover(ctx, name, change, began)
		}}
}

// hangName begins the names of actions whose recovery includes its detection.
const hangName = "SIGSTOP for ever "

// hold stops a plugin for less than the host's patience: nothing may happen to
// it. What the status says must not change either, so nothing is made known.
func hold(p part) action {
	return action{name: "SIGSTOP for a moment " + string(p), on: p, touches: []part{p}, weight: 1,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			pid := l.known.plugin(p).PID
			if err := sendSignal(pid, syscall.SIGSTOP); err != nil {
				return err
			}
			pause(ctx, 200*time.Millisecond+time.Duration(random.IntN(600))*time.Millisecond)
			return sendSignal(pid, syscall.SIGCONT)
		}}
}

// starve lets a plugin run a tenth of the time.
func starve(p part) action {
	return action{name: "starve " + string(p), on: p, touches: []part{p}, weight: 1,
		do: func(ctx context.Context, l *laboratory, random *rand.Rand) error {
			pid := l.known.plugin(p).PID
			for end := time.Now().Add(time.Second + time.Duration(random.IntN(1500))*time.Millisecond); time.Now().Before(end) && ctx.Err() == nil; {
				if err := sendSignal(pid, syscall.SIGSTOP); err != nil {
					return err
				}
				pause(ctx, 90*time.Millisecond)
				if err := sendSignal(pid, syscall.SIGCONT); err != nil {
					return err
				}
				pause(ctx, 10*time.Millisecond)
			}
			return nil
		}}
}

// crashLoop kills a plugin again and again until the host gives it up, and lets
// a person restart it. It is done to the transport whose connections do not
// outlive that.
func crashLoop() action {
	const name = "crash loop " + string(websocket)
	return action{name: name, on: websocket, touches: []part{websocket}, weight: 1, replaces: true,
		do: func(ctx context.Context, l *laboratory, _ *rand.Rand) error {
			change := l.begin(websocket, giveUpAfter, killedCause)
			change.states = append(change.states, "failed")
			l.known.begin(websocket, change.check)
			pid := change.before.PID
			for range giveUpAfter {
				if err := sendSignal(pid, syscall.SIGKILL); err != nil {
					return err
				}
				s, err := l.await(ctx, websocket, recoveryTimeout, func(s host.TransportStatus) bool {
					return s.State == "failed" || s.PID != 0 && s.PID != pid
				})
				if err != nil {
					return err
				}
				pid = s.PID
			}
			s, err := l.await(ctx, websocket, recoveryTimeout, func(s host.TransportStatus) bool { return s.State == "failed" })
			if err != nil {
				return err
			}
			if want := "mend the cause, then: transporthost plugins restart websocket"; s.Remedy != want || s.PID != 0 || s.Restarts != change.before.Restarts+giveUpAfter-1 {
				return fmt.Errorf("the status disagrees: transport websocket has failed with remedy %q, pid %d, %d restarts, want %q, none, %d",
					s.Remedy, s.PID, s.Restarts, want, change.before.Restarts+giveUpAfter-1)
			}
			began := time.Now()
			if err := l.host.asked.RestartPlugin(ctx, string(websocket)); err != nil {
				return fmt.Errorf("restarting a transport that has failed: %w", err)
			}
			return l.recover(ctx, name, change, began)
		}}
}

// giveUpAfter is how many failures the host takes; the default.
const giveUpAfter = 5
