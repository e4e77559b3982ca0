package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
)

// A notifier tells the service manager that started this program how it is
// (systemd's sd_notify), if there is one. Its methods wait for nobody.
type notifier struct {
	log      hclog.Logger
	socket   *net.UnixAddr // nil: there is nobody to tell, and nothing runs
	watchdog time.Duration // in which it wants a sign of life; 0: never
	queue    chan string
	probed   chan prober // one slot: whose signs of life are given

	mu       sync.Mutex // guards what follows
	ready    bool
	stopping bool
	stopped  bool
	status   string // that was told last
}

// A prober says whether it lives; see [host.Host.Probe].
type prober interface {
	Probe(ctx context.Context) error
}

const (
	// notifyTimeout is what the manager's queue may stay full. The library's own
	// call would wait for ever.
	notifyTimeout = time.Second
	// notifyQueue is far more than what is said in that time.
	notifyQueue = 64
	// maxStatusText is what the manager's tools show on a line or two.
	maxStatusText = 300
)

// newNotifier reads who is to be told from the environment, and takes that away:
// what the host starts has nothing to tell.
func newNotifier(log hclog.Logger) *notifier {
	n := &notifier{log: log, queue: make(chan string, notifyQueue), probed: make(chan prober, 1)}
	name := os.Getenv("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET")
	watchdog, err := daemon.SdWatchdogEnabled(true)
	switch {
	case name == "":
		return n
	case name[0] != '/' && name[0] != '@':
		log.Warn("the service manager is not told anything: want a path or @NAME", "NOTIFY_SOCKET", name)
		return n
	case err != nil:
		log.Warn("the service manager gets no signs of life", "error", err)
	}
	n.socket, n.watchdog = &net.UnixAddr{Name: name, Net: "unixgram"}, watchdog
	return n
}

// listens reports whether there is somebody to tell.
func (n *notifier) listens() bool { return n.socket != nil }

// run tells until ctx ends, and what was queued before that.
func (n *notifier) run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { n.watch(ctx) })
	n.send(ctx)
	loops.Wait()
}

// tell queues lines for the manager. The caller holds mu, so that what is told
// keeps its order.
func (n *notifier) tell(lines ...string) {
	if n.socket == nil {
		return
	}
	select {
	case n.queue <- strings.Join(lines, "\n"):
	default:
		n.log.Warn("the service manager does not listen", "left_out", lines[0])
	}
}

func (n *notifier) send(ctx context.Context) {
	for {
		select {
		case text := <-n.queue:
			n.sendOne(text)
		case <-ctx.Done():
			for len(n.queue) > 0 && n.sendOne(<-n.queue) {
			}
			return
		}
	}
}

// sendOne reports whether the manager takes what it is told.
func (n *notifier) sendOne(text string) bool {
	// A new socket each time: the manager may have been replaced.
	c, err := net.DialUnix(n.socket.Net, nil, n.socket)
	if err == nil {
		_ = c.SetWriteDeadline(time.Now().Add(notifyTimeout))
		_, err = c.Write([]byte(text))
		_ = c.Close()
	}
	if err != nil {
		first, _, _ := strings.Cut(text, "\n")
		n.log.Warn("telling the service manager", "what", first, "error", err)
	}
	return err == nil
}

// serving says that h is ready, and from now on shows that it lives.
func (n *notifier) serving(h prober, s host.Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready, n.status = true, statusText(s)
	n.tell(daemon.SdNotifyReady, "STATUS="+n.status)
	n.probed <- h // it is called once
}

// changed says how the host is, if that is something new.
func (n *notifier) changed(s host.Status) {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := statusText(s)
	if s.State == host.StateDraining && !n.stopping {
		n.stopping, n.status = true, text
		n.tell(daemon.SdNotifyStopping, "STATUS="+text)
	}
	n.stopped = s.State == host.StateStopped
	if text != n.status {
		n.status = text
		n.tell("STATUS=" + text)
	}
}

// reloading says that the host reads something again. The caller says with done
// when it has.
func (n *notifier) reloading() (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ready || n.stopping {
		return func() {}
	}
	n.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.stopping {
			n.tell(daemon.SdNotifyReady, "STATUS="+n.status)
		}
	}
}

// watch gives a sign of life twice in the time that the manager waits for one,
// as long as the host's own loops answer: a host that hangs is to be replaced.
func (n *notifier) watch(ctx context.Context) {
	if n.socket == nil || n.watchdog == 0 {
		return
	}
	var h prober
	select {
	case h = <-n.probed:
	case <-ctx.Done():
		return
	}
	interval := n.watchdog / 2
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		probe, cancel := context.WithTimeout(ctx, interval)
		err := h.Probe(probe)
		cancel()
		n.mu.Lock()
		switch {
		case n.stopped, ctx.Err() != nil: // it has shown all that it had to
		case err == nil:
			n.tell(daemon.SdNotifyWatchdog)
		default:
			n.log.Error("the host hangs, and gives no sign of life to the service manager", "error", err)
		}
		n.mu.Unlock()
	}
}

// statusText is s in one line, for the manager's tools.
func statusText(s host.Status) string {
	if s.State != host.StateServing {
		return string(s.State)
	}
	serving, all := 0, 0
	trouble := ""
	for _, p := range s.Plugins {
		switch p.State {
		case supervisor.Disabled:
			continue
		case supervisor.Ready:
			serving++
		default:
			trouble += fmt.Sprintf("; %s is %s", p.Instance, p.State)
			if p.Cause != "" {
				trouble += ": " + p.Cause
			}
		}
		all++
	}
	text := fmt.Sprintf("serving on %d of %d transports%s", serving, all, trouble)
	switch {
	case serving == all && all == 1:
		text = "serving on 1 transport"
	case serving == all:
		text = fmt.Sprintf("serving on %d transports", all)
	}
	// A line of a stranger's would be a message to the manager.
	text = oneLine(text)
	if runes := []rune(text); len(runes) > maxStatusText {
		text = string(runes[:maxStatusText-1]) + "…"
	}
	return text
}

// oneLine returns text without what would end a line or command a terminal: some
// of it is a stranger's words.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}
