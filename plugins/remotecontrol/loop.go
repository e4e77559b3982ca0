package remotecontrol

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/hashicorp/go-hclog"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// hostCalls is what the loop asks of the host.
type hostCalls interface {
	stateCalls
	Credentials(ctx context.Context) (pluginsdk.Credentials, error)
	RecoverUnauthorized(ctx context.Context, generation uint64) (pluginsdk.Credentials, error)
	CredentialsAccepted(generation uint64)
	ClientName(ctx context.Context) (string, error)
}

// relayClients are the virtual clients, which outlive every link.
type relayClients interface {
	// adopt takes over what an earlier process left.
	adopt(resume []pluginsdk.Resume) error
	// cursor is where the backend shall continue, or "".
	cursor() string
	// serve runs one relay link until it ends or ctx does, and owns ws. The
	// cause of ctx decides how the link is closed.
	serve(ctx context.Context, ws *websocket.Conn) error
	// close ends every virtual client, towards the host too.
	close(reason pluginsdk.CloseReason)
	// detach ends what runs for them, and leaves their connections open for the
	// next process. It may follow close.
	detach()
	// len is how many there are.
	len() int
	// counters are what has gone wrong that is nobody's error, by name.
	counters() map[string]string
}

// nameGrace is how long the host may take to say that there is no name before
// the wait for one is shown.
const nameGrace = 50 * time.Millisecond

// A loop keeps one relay link (spec 4). All but enabled, news and status belongs
// to the goroutine of run.
type loop struct {
	host    hostCalls
	log     hclog.Logger
	cfg     config
	dialer  *dialer
	clients relayClients
	status  *reporter
	enabled *toggle
	news    *news

	installationID string
	clientName     string
	backend        *backend // nil until the URL is accepted
	backoff        backoff

	enrollment *enrollment // of the account that the last attempt was made for
	known      uint64      // generation of credentials that needs no waking up
	lastBegun  time.Time   // of an attempt
	conflicts  int         // answers of 409 in a row
	renewed    bool        // the enrollment was replaced because of them
}

// newRandom is for jitter.
func newRandom() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }

// useTarget makes the backend that the URL names.
func (l *loop) useTarget() error {
	if l.backend != nil {
		return nil
	}
	t, err := parseTarget(l.cfg.URL, l.cfg.AllowedHosts)
	if err != nil {
		return err
	}
	l.backend = newBackend(l.cfg, t, l.dialer, l.installationID)
	l.status.update(func(f *facts) { f.url, f.route = t.websocket, l.dialer.route(t.websocket) })
	return nil
}

func (l *loop) rows() rows {
	return rows{state: l.host, websocket: l.backend.target.websocket, clientName: l.clientName}
}

// run keeps the link until ctx ends, in the order of spec 4: client name, then
// enabled, then auth, enrollment and socket. It returns an error only for what
// another process may do better.
func (l *loop) run(ctx context.Context) error {
	l.status.update(func(f *facts) {
		if on, _ := l.enabled.get(); on {
			f.settle(stateConnecting, "asking the host for its credentials and its client's name", "")
		} else {
			f.disabled()
		}
	})
	name, err := l.awaitName(ctx)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, pluginsdk.ErrNotGranted):
		// its enrollments are those of a host without a terminal
		l.log.Warn("the client's name is not granted: remote control goes on without it", "error", err)
		name = ""
	case errors.Is(err, pluginsdk.ErrNotFound):
		l.status.update(func(f *facts) {
			f.settle(stateStopped, "the terminal's peer left without saying its name", nameRemedy)
		})
		l.clients.close(pluginsdk.CloseReason{Code: pluginsdk.CloseGoingAway, Text: "remote control has ended"})
		<-ctx.Done()
		return nil
	case err != nil:
		return fmt.Errorf("asking for the client's name: %w", err)
	}
	l.clientName = name
	for ctx.Err() == nil {
		on, end, ok := l.enabled.period(ctx)
		if !ok {
			l.awaitEnabled(ctx)
			continue
		}
		l.keep(on)
		end(nil)
	}
	return nil
}

// awaitName waits for the client's name.
func (l *loop) awaitName(ctx context.Context) (name string, err error) {
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan struct{})
	asking.Go(func() {
		name, err = l.host.ClientName(ctx)
		close(answered)
	})
	grace := time.NewTimer(nameGrace)
	defer grace.Stop()
	select {
	case <-answered:
		return name, err
	case <-grace.C:
	}
	for {
		on, changed := l.enabled.get()
		l.status.update(func(f *facts) {
			if on {
				f.settle(stateWaitingForName, "waiting for the program at the terminal to say its name", "start a program at the terminal that sends initialize")
			} else {
				f.disabled()
			}
		})
		select {
		case <-answered:
			return name, err
		case <-changed:
		}
	}
}

func (l *loop) awaitEnabled(ctx context.Context) {
	on, changed := l.enabled.get()
	if on {
		return
	}
	l.status.update((*facts).disabled)
	select {
	case <-changed:
	case <-ctx.Done():
	}
}

// keep makes links until ctx ends: remote control is disabled, or the process
// stops.
func (l *loop) keep(ctx context.Context) {
	if err := l.useTarget(); err != nil {
		// no retry can mend it (spec 4.3); enabling again looks again
		l.log.Warn("remote control is enabled but the URL is invalid: " + err.Error())
		l.status.update(func(f *facts) { f.settle(stateNeedsUser, oneLine(err.Error()), urlRemedy) })
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		ws, creds, f := l.attempt(ctx)
		if f != nil {
			l.pause(ctx, f)
			continue
		}
		begun := time.Now()
		err := l.runLink(ctx, ws, creds)
		lived := time.Since(begun)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errAccountChanged):
			l.log.Info("the account has changed: the relay link is made anew")
			l.enrollment, l.conflicts, l.renewed = nil, 0, false // what was refused was the other account's
			l.status.update(func(s *facts) {
				s.enrolled(nil)
				s.settle(stateConnecting, "the account has changed: asking the host for credentials", "")
			})
		default:
			f := &failure{kind: failedOther, err: err, remedy: waitRemedy,
				text: fmt.Sprintf("the relay link ended after %v: %s", lived.Round(time.Millisecond), errorText(err))}
			if lived < settledAfter {
				l.pause(ctx, f)
				continue
			}
			l.settled()
			delay := l.backoff.afterSettled()
			l.status.update(func(s *facts) { s.failed(stateRetrying, f, time.Now().Add(delay)) })
			l.sleep(ctx, delay, false)
		}
	}
}

// settled forgets what went wrong before a link that lived long enough.
func (l *loop) settled() {
	l.backoff.reset()
	l.conflicts, l.renewed = 0, false
	l.status.update(func(f *facts) { f.attempts, f.lastError = 0, "" })
}

// pause waits as a failure wants it, and shows it meanwhile.
func (l *loop) pause(ctx context.Context, f *failure) {
	if ctx.Err() != nil {
		return // it is why the attempt failed
	}
	var delay time.Duration
	switch {
	case f.kind == wouldBlock:
		delay = recoverableDelay
	case f.held:
		delay = l.backoff.held()
	default:
		delay = l.backoff.next()
	}
	if floor := f.retryAfter(); floor > 0 {
		delay = max(delay, l.backoff.above(floor))
	}
	next := time.Now().Add(delay)
	if f.until.After(next) {
		next = f.until
	}
	state := stateRetrying
	switch {
	case f.kind == wouldBlock && f.auth:
		state, next = stateWaitingForAuth, time.Time{} // each second: not worth a report each
	case f.user:
		state = stateNeedsUser
	}
	l.status.update(func(s *facts) {
		if f.kind != wouldBlock {
			s.attempts++
		}
		s.enrolled(l.enrollment)
		s.failed(state, f, next)
	})
	l.sleep(ctx, delay, f.auth)
}

// sleep waits for d, for the end of ctx or, if auth is set, for other
// credentials.
func (l *loop) sleep(ctx context.Context, d time.Duration, auth bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		var changed <-chan struct{}
		if auth {
			changed = l.news.beyond(l.known)
		}
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-changed:
			if l.news.generation() > l.known {
				return
			}
		}
	}
}

// space keeps attempts apart that would follow each other too fast: after a
// change of credentials, or of the switch. It is false if ctx ended meanwhile.
func (l *loop) space(ctx context.Context) bool {
	if wait := attemptSpacing - time.Since(l.lastBegun); !l.lastBegun.IsZero() && wait > 0 {
		l.sleep(ctx, wait, false)
	}
	if ctx.Err() != nil {
		return false // a dialer may win its race against an ended context
	}
	l.lastBegun = time.Now()
	return true
}
