package remotecontrol

import (
	"context"
	"errors"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// countEvery is how often the number of virtual clients is looked at, for the
// status.
const countEvery = 2 * time.Second

// A keeper looks after one relay link while it runs: that its account is still
// the host's, and that its token outlives it.
type keeper struct {
	loop  *loop
	creds pluginsdk.Credentials
	end   context.CancelCauseFunc

	// One errand at a time, in a goroutine: a slow host or backend must not
	// keep the end of the link from being seen. What it found is applied in
	// the loop's goroutine.
	cancel context.CancelFunc
	found  chan func(link context.Context)

	doubtful bool      // there were no credentials: one more look, then the link ends
	earliest time.Time // of the next refresh
	refresh  *time.Timer
	recheck  *time.Timer
}

// runLink serves a relay link until it ends, and returns why it did:
// errAccountChanged, the cause of ctx, or what was wrong with the link.
func (l *loop) runLink(ctx context.Context, ws *websocket.Conn, creds pluginsdk.Credentials) error {
	l.status.update(func(s *facts) {
		s.enrolled(l.enrollment)
		s.connected()
		s.count(l.clients)
	})
	begun := time.Now()
	link, end := context.WithCancelCause(ctx)
	defer end(nil)
	served := make(chan error, 1)
	go func() { served <- l.clients.serve(link, ws) }()

	k := &keeper{loop: l, creds: creds, end: end, refresh: time.NewTimer(time.Hour), recheck: time.NewTimer(time.Hour)}
	defer k.stop()
	k.recheck.Stop()
	if e := l.enrollment; e.token != "" && !e.expires.After(time.Now().Add(refreshSkew)) {
		// it was got just now, or its refresh is deferred: it ends soon, and
		// asking again at once would not change that
		k.earliest = time.Now().Add(l.deferral(&failure{}))
	}
	k.schedule()
	count := time.NewTicker(countEvery)
	defer count.Stop()
	for {
		select {
		case err := <-served:
			if cause := context.Cause(link); cause != nil {
				return cause
			}
			if err == nil {
				err = errors.New("the link was closed")
			}
			return err
		case apply := <-k.found:
			k.found = nil
			k.cancel()
			apply(link)
		case <-l.news.beyond(l.known):
			k.changed(link)
		case <-k.recheck.C:
			k.check(link)
		case <-k.refresh.C:
			k.renew(link)
		case now := <-count.C:
			if now.Sub(begun) >= settledAfter {
				l.settled()
			}
			l.status.update(func(s *facts) { s.count(l.clients) })
		}
	}
}

// stop ends the errand and waits for it.
func (k *keeper) stop() {
	k.refresh.Stop()
	k.recheck.Stop()
	k.abandon()
	k.loop.status.update(func(s *facts) { s.count(k.loop.clients) })
}

func (k *keeper) abandon() {
	if k.found == nil {
		return
	}
	k.cancel()
	<-k.found
	k.found = nil
}

// start begins an errand. What it returns is called by the loop's goroutine,
// with the context of the link, unless the errand is abandoned.
func (k *keeper) start(ctx context.Context, errand func(ctx context.Context) func(link context.Context)) {
	ctx, k.cancel = context.WithCancel(ctx)
	found := make(chan func(context.Context), 1)
	k.found = found
	go func() { found <- errand(ctx) }()
}

// changed follows news of other credentials. An errand with the old ones is
// pointless.
func (k *keeper) changed(ctx context.Context) {
	k.loop.known = max(k.loop.known, k.loop.news.generation())
	k.abandon()
	k.check(ctx)
	k.schedule()
}

// check looks whether the host still has this link's account.
func (k *keeper) check(ctx context.Context) {
	if k.found != nil {
		k.recheck.Reset(recoverableDelay)
		return
	}
	k.start(ctx, func(ctx context.Context) func(context.Context) {
		creds, err := k.loop.host.Credentials(ctx)
		return func(link context.Context) {
			if link.Err() == nil {
				k.judge(creds, err)
			}
		}
	})
}

// judge draws the conclusions from what the host said of its credentials.
func (k *keeper) judge(creds pluginsdk.Credentials, err error) {
	l := k.loop
	if err != nil {
		l.status.update(func(s *facts) { s.unusable = oneLine(err.Error()) })
		if k.doubtful {
			k.end(errAccountChanged)
			return
		}
		// a file that is being rewritten looks like this for a moment
		k.doubtful = true
		k.recheck.Reset(recoverableDelay)
		return
	}
	k.doubtful = false
	l.known = max(l.known, creds.Generation)
	l.status.update(func(s *facts) { s.unusable = "" })
	if creds.AccountID != k.creds.AccountID {
		k.end(errAccountChanged)
	}
}

// schedule sets the time of the next refresh (spec 0.2, 10).
func (k *keeper) schedule() {
	k.refresh.Stop()
	e := k.loop.enrollment
	if k.loop.cfg.Protocol != profile3 || e == nil || e.tokenless || e.token != "" && e.expires.IsZero() {
		return
	}
	due := e.expires.Add(-refreshSkew) // long ago, if there is no token
	for _, t := range []time.Time{e.nextRefresh, k.earliest} {
		if t.After(due) {
			due = t
		}
	}
	k.refresh.Reset(max(time.Until(due), 0))
}

// renew refreshes the token of the running link. The link does not need it; the
// next one does, and finds a backend that may be busy with everybody else's.
func (k *keeper) renew(ctx context.Context) {
	if k.found != nil || k.doubtful {
		k.earliest = time.Now().Add(recoverableDelay)
		k.schedule()
		return
	}
	l, e := k.loop, k.loop.enrollment
	asked := *e // the errand must not read what the loop's goroutine changes
	k.start(ctx, func(ctx context.Context) func(context.Context) {
		creds, err := l.host.Credentials(ctx)
		if err != nil || creds.AccountID != asked.accountID {
			return func(link context.Context) {
				if link.Err() == nil {
					k.judge(creds, err)
					k.earliest = time.Now().Add(recoverableDelay)
					k.schedule()
				}
			}
		}
		token, f := l.backend.refresh(ctx, creds, &asked)
		var better pluginsdk.Credentials
		if f != nil && f.kind == permissionDenied && !f.answer.policy() {
			if better, err = l.host.RecoverUnauthorized(ctx, creds.Generation); err != nil {
				better = pluginsdk.Credentials{} // the host waits for a sign-in, and tells of it
			}
		}
		return func(link context.Context) {
			l.known = max(l.known, better.Generation)
			if link.Err() != nil {
				return
			}
			k.renewed(link, e, token, f)
			if better.Generation > 0 {
				k.judge(better, nil) // the recovery may have found another account
			}
		}
	})
}

// renewed draws the conclusions from a refresh beside a running link.
func (k *keeper) renewed(ctx context.Context, e *enrollment, token issuedToken, f *failure) {
	l := k.loop
	k.earliest = time.Now().Add(l.deferral(&failure{}))
	switch {
	case f == nil:
		l.issued(ctx, e, token)
		e.fresh = false
		l.status.update(func(s *facts) { s.enrolled(e) })
	case f.kind == notFound:
		l.log.Warn("the backend does not know the enrollment any more; the next link gets a new one", "error", f.text)
		l.clear(ctx)
	default:
		l.log.Warn("refreshing the server token of the running link", "error", f.text)
		if f.kind == permissionDenied {
			e.dropToken(e.token)
		}
		k.earliest = time.Now().Add(l.deferral(f))
		if f.kind == timedOut || f.answer != nil && f.answer.transient() {
			e.nextRefresh = k.earliest
		}
	}
	k.schedule()
}
