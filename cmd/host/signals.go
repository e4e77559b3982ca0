package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host"
)

// signals are those that a person, or a service manager, sends to a host.
type signals struct {
	received chan os.Signal
	ended    chan struct{}
	hangup   hangup
	obeying  sync.WaitGroup
	again    chan struct{} // one slot: something is to be read again
}

// listenForSignals catches them from now on.
func listenForSignals() *signals {
	s := &signals{received: make(chan os.Signal, 2), ended: make(chan struct{}), hangup: newHangup(), again: make(chan struct{}, 1)}
	signal.Notify(s.received, append([]os.Signal{os.Interrupt, syscall.SIGTERM}, hangupSignals()...)...)
	return s
}

// end returns when nobody obeys any more.
func (s *signals) end() {
	signal.Stop(s.received)
	close(s.ended)
	s.obeying.Wait()
}

// start obeys them until end.
func (s *signals) start(h *host.Host, log hclog.Logger, reload func(), drain context.CancelCauseFunc) {
	s.obeying.Go(func() { s.obey(h, log, drain) })
	s.obeying.Go(func() {
		for {
			select {
			case <-s.again:
				reload()
			case <-s.ended:
				return
			}
		}
	})
}

// obey does what they ask for, until end. The first that ends the host calls
// drain; a second one does not wait for what is in flight. A reload may take its
// time: it is another goroutine's.
func (s *signals) obey(h *host.Host, log hclog.Logger, drain context.CancelCauseFunc) {
	draining := false
	for {
		select {
		case received := <-s.received:
			switch {
			case isHangup(received) && !s.hangup.terminalGone():
				select {
				case s.again <- struct{}{}:
				default: // the next one reads what is there then
				}
			case isHangup(received):
				if !draining {
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
