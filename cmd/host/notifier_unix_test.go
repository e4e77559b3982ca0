//go:build unix

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

// limit bounds every wait: long, because it only passes when a test fails.
const limit = 30 * time.Second

// notified makes a notifier, and where it tells. It runs until the returned
// function, or the test's end.
func notified(t *testing.T, log hclog.Logger) (*notifier, *net.UnixConn, func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "th")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(limit))
	t.Setenv("NOTIFY_SOCKET", path)
	n := newNotifier(log)
	if left, there := os.LookupEnv("NOTIFY_SOCKET"); there {
		t.Errorf("NOTIFY_SOCKET is still %q", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { n.run(ctx) })
	end := func() {
		cancel()
		runs.Wait()
	}
	t.Cleanup(end)
	return n, c, end
}

func told(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// A hanging host answers no probe until it is released.
type hanging struct{ release chan struct{} }

func (h hanging) Probe(ctx context.Context) error {
	select {
	case <-h.release:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// said is a log that tells of each line.
type said chan string

func (s said) Write(p []byte) (int, error) {
	select {
	case s <- string(p):
	default:
	}
	return len(p), nil
}

func TestHangingHostGivesNoSignOfLife(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000")
	lines := make(said, 100)
	n, c, _ := notified(t, hclog.New(&hclog.LoggerOptions{Output: lines}))
	h := hanging{make(chan struct{})}
	n.serving(h, host.Status{State: host.StateServing})
	for range 3 { // intervals in which a sign was due
		select {
		case line := <-lines:
			if !strings.Contains(line, "the host hangs, and gives no sign of life") {
				t.Errorf("logged %q", line)
			}
		case <-time.After(limit):
			t.Fatal("nothing is logged")
		}
	}
	close(h.release)
	if got := told(t, c); !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("told %q, want READY=1", got)
	}
	if got := told(t, c); got != "WATCHDOG=1" {
		t.Errorf("told %q, want a sign of life", got)
	}
}

func TestReloadingIsToldOnlyWhileServing(t *testing.T) {
	n, c, end := notified(t, hclog.NewNullLogger())
	serving := host.Status{State: host.StateServing, Plugins: []host.TransportStatus{{State: supervisor.Ready}}}
	done := n.reloading() // before it is ready: the end of this must not say that it is
	n.serving(hanging{}, serving)
	done()
	done = n.reloading()
	n.changed(host.Status{State: host.StateDraining})
	done() // too late to be ready
	n.reloading()()
	n.changed(host.Status{State: host.StateDraining})
	n.changed(host.Status{State: host.StateStopped})
	end() // what is queued is told first
	for _, want := range []string{"READY=1\nSTATUS=serving on 1 transport", "RELOADING=1\nMONOTONIC_USEC=", "STOPPING=1\nSTATUS=draining", "STATUS=stopped"} {
		if got := told(t, c); got != want && (!strings.HasSuffix(want, "=") || !strings.HasPrefix(got, want)) {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	_ = c.SetReadDeadline(time.Now())
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes more are told", n)
	}
}

// TestDeafManager: nobody waits for one whose queue is full.
func TestDeafManager(t *testing.T) {
	lines := make(said, 100)
	n, _, end := notified(t, hclog.New(&hclog.LoggerOptions{Output: lines}))
	for i := range 10 * notifyQueue {
		n.changed(host.Status{State: host.State(strings.Repeat("x", i+1))})
	}
	end()
	select {
	case <-lines:
	default:
		t.Error("nothing is logged")
	}
}

func TestNobodyToTell(t *testing.T) {
	for _, address := range []string{"", "vsock:2:1234"} {
		t.Setenv("NOTIFY_SOCKET", address)
		n := newNotifier(hclog.NewNullLogger())
		if n.listens() {
			t.Errorf("%q listens", address)
		}
		n.serving(hanging{}, host.Status{})
		n.changed(host.Status{State: host.StateDraining})
		n.reloading()()
		if len(n.queue) > 0 {
			t.Errorf("%d messages wait for %q", len(n.queue), address)
		}
	}
}

func TestStatusText(t *testing.T) {
	ready := host.TransportStatus{Instance: "a", State: supervisor.Ready}
	ill := host.TransportStatus{Instance: "b", State: supervisor.BackingOff, Cause: "killed"}
	for _, tt := range []struct {
		name    string
		state   host.State
		plugins []host.TransportStatus
		want    string
	}{
		{"starting", host.StateStarting, []host.TransportStatus{ready}, "starting"},
		{"one", host.StateServing, []host.TransportStatus{ready}, "serving on 1 transport"},
		{"all, without the disabled", host.StateServing, []host.TransportStatus{ready, ready, {State: supervisor.Disabled}}, "serving on 2 transports"},
		{"some", host.StateServing, []host.TransportStatus{ready, ill, {Instance: "c", State: supervisor.Starting}},
			"serving on 1 of 3 transports; b is backing-off: killed; c is starting"},
		{"a cause that would be a message of its own", host.StateServing, []host.TransportStatus{{Instance: "b", State: supervisor.Failed, Cause: "x\nMAINPID=1\r\n\x1b[0m"}},
			"serving on 0 of 1 transports; b is failed: x MAINPID=1   [0m"},
		{"a long cause", host.StateServing, []host.TransportStatus{{Instance: "b", State: supervisor.Failed, Cause: strings.Repeat("ä", 1000)}},
			"serving on 0 of 1 transports; b is failed: " + strings.Repeat("ä", maxStatusText-44) + "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := statusText(host.Status{State: tt.state, Plugins: tt.plugins}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
