//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

func hangupSignals() []os.Signal { return []os.Signal{syscall.SIGHUP} }

func isHangup(s os.Signal) bool { return s == syscall.SIGHUP }

// A hangup tells the two meanings of SIGHUP apart: a person asks to read
// something again, or the terminal has been closed, and with it goes what was
// started there.
type hangup struct {
	atTerminal bool // there is a terminal to lose
	ignored    bool // the host is to outlive it: nohup
}

func newHangup() hangup {
	return hangup{atTerminal: hasTerminal(), ignored: signal.Ignored(syscall.SIGHUP)}
}

// terminalGone reports whether the terminal was closed that the host was started
// at, and that it should go with.
func (h hangup) terminalGone() bool { return h.atTerminal && !h.ignored && !hasTerminal() }

// hasTerminal reports whether this process has a controlling terminal.
func hasTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = tty.Close()
	return true
}
