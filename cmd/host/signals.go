package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host"
)

// signals are those that a person, or a service manager, sends to a host.
type signals struct {
	received chan os.Signal
	ended    chan struct{}
	hangup   hangup
}

// listenForSignals catches them from now on.
func listenForSignals() *signals {
	s := &signals{received: make(chan os.Signal, 2), ended: make(chan struct{}), hangup: newHangup()}
	signal.Notify(s.received, append([]os.Signal{os.Interrupt, syscall.SIGTERM}, hangupSignals()...)...)
	return s
}

func (s *signals) end() {
	signal.Stop(s.received)
	close(s.ended)
}

// obey does what they ask for, until end. The first that ends the host calls
// drain; a second one does not wait for what is in flight.
func (s *signals) obey(h *host.Host, log hclog.Logger, manager *notifier, drain context.CancelCauseFunc) {
	draining := false
	for {
		select {
		case received := <-s.received:
			switch {
			case isHangup(received):
				done := manager.reloading()
				reloaded := s.reload(h, log)
				done()
				if !reloaded && !draining {
					draining = true
					log.Info("draining", "signal", received.String())
					drain(fmt.Errorf("%v", received))
				}
			case draining:
				log.Warn("ending at once", "signal", received.String())
				h.Abort()
				signal.Stop(s.received) // whatever keeps the host now, a third one ends it
				return
			default:
				draining = true
				log.Info("draining", "signal", received.String())
				drain(fmt.Errorf("%v", received))
			}
		case <-s.ended:
			return
		}
	}
}

// reload reads the credentials again. It is false if the signal ends the host:
// nothing is there to be read, or the terminal that the host was started at is
// gone.
func (s *signals) reload(h *host.Host, log hclog.Logger) bool {
	if s.hangup.terminalGone() {
		return false
	}
	changed, err := h.ReloadCredentials("SIGHUP")
	if err != nil {
		return s.hangup.ignored // as by nohup
	}
	log.Info("credentials were read again", "signal", "SIGHUP", "changed", changed)
	return true
}
