//go:build unix

package host

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/supervisor"
)

func TestProbe(t *testing.T) {
	r := start(t, nil, behaves("a", "plain"))
	r.awaitReady()
	if err := r.Probe(t.Context()); err != nil {
		t.Errorf("of a host that serves: %v", err)
	}

	// Whatever holds a lock that the status needs is what a hung host looks like.
	r.mu.Lock()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	err := r.Probe(short)
	cancel()
	r.mu.Unlock()
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "holds a lock") {
		t.Errorf("of a host whose lock is held: %v", err)
	}
	if err := r.Probe(t.Context()); err != nil {
		t.Errorf("of a host that hung, and serves again: %v", err)
	}

	r.stop()
	_ = r.wait()
	if err := r.Probe(t.Context()); err == nil {
		t.Error("a host that has ended answers")
	}
}

func TestProbeOfAHungLoop(t *testing.T) {
	var once sync.Once
	hung, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(c *Config) {
		c.Changed = func(s Status) {
			if s.State == StateServing {
				once.Do(func() {
					close(hung)
					<-release
				})
			}
		}
	}, behaves("a", "plain"))
	<-hung
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Probe(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the main loop does not answer") {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := r.Probe(t.Context()); err != nil {
		t.Errorf("once it goes on: %v", err)
	}
}

// TestProbeWhileDraining: a host that waits for its peers is not stuck.
func TestProbeWhileDraining(t *testing.T) {
	var r *hosted
	var while error
	r = start(t, func(c *Config) {
		c.Changed = func(s Status) {
			if s.State == StateDraining {
				while = r.Probe(context.Background())
			}
		}
	}, behaves("a", "plain"))
	r.awaitReady()
	r.stop()
	_ = r.wait()
	if while != nil {
		t.Errorf("got %v", while)
	}
}

func TestChangedTellsTheStates(t *testing.T) {
	var states []State // of one goroutine
	r := start(t, func(c *Config) {
		c.Changed = func(s Status) { states = append(states, s.State) }
	}, behaves("a", "plain"))
	r.awaitReady()
	r.stop()
	_ = r.wait()
	want := []State{StateStarting, StateServing, StateDraining, StateStopped}
	if got := slices.Compact(states); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func passedSocket(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return f, "ws://" + l.Addr().String()
}

func TestHostUsesPassedSockets(t *testing.T) {
	f, address := passedSocket(t)
	disabled, unused := passedSocket(t)
	listens := behaves("a", "plain")
	listens.Listen = []string{address}
	sleeps := behaves("b", "plain")
	sleeps.Listen, sleeps.Disabled = []string{unused}, true
	r := start(t, func(c *Config) { c.Sockets = []*os.File{f, disabled} }, listens, sleeps)
	r.awaitReady() // the address is taken, and could not be bound
	if err := r.SetTransportEnabled(t.Context(), "b", true); err != nil {
		t.Errorf("enabling the transport of a socket that was passed at the start: %v", err)
	}
	r.await("b", "ready", func(s supervisor.Status) bool { return s.State == supervisor.Ready })
}

func TestHostRefusesASocketThatNobodyUses(t *testing.T) {
	f, address := passedSocket(t)
	r := start(t, func(c *Config) { c.Sockets = []*os.File{f} }, behaves("a", "plain"))
	err := r.wait()
	if !errors.Is(err, ErrInvalidConfig) || !strings.Contains(err.Error(), "put "+address+" among the addresses of a transport") {
		t.Errorf("Run: got %v", err)
	}
}

func TestReloadRefusesToLeaveASocket(t *testing.T) {
	f, address := passedSocket(t)
	listens := behaves("a", "plain")
	listens.Listen = []string{address}
	var cfg Config
	r := start(t, func(c *Config) {
		c.Sockets = []*os.File{f}
		cfg = *c
	}, listens)
	r.awaitReady()
	cfg.Transports = []Transport{behaves("a", "plain")}
	changed, err := r.Reload(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "put "+address+" among the addresses of a transport") {
		t.Errorf("Reload: %+v, %v", changed, err)
	}
	if s := r.plugin("a"); s.Incarnation != 1 || s.State != supervisor.Ready {
		t.Errorf("its status is %+v, want that nothing has changed", s)
	}
	cfg.Transports = []Transport{listens, behaves("b", "plain")}
	if changed, err := r.Reload(t.Context(), cfg); err != nil || !slices.Equal(changed.Added, []string{"b"}) {
		t.Errorf("Reload with the socket in use: %+v, %v", changed, err)
	}
}
