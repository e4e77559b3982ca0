package remotecontrol

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// conflictLimit is how many answers of 409 in a row cost the enrollment.
const conflictLimit = 3

// attempt makes one relay link, or says why there is none. It goes through the
// steps of spec 2.5: credentials, enrollment, token, websocket.
func (l *loop) attempt(ctx context.Context) (*websocket.Conn, pluginsdk.Credentials, *failure) {
	creds, f := l.credentials(ctx)
	if f != nil {
		return nil, creds, f
	}
	if !l.space(ctx) {
		cause := context.Cause(ctx)
		return nil, creds, &failure{kind: failedOther, text: cause.Error(), err: cause}
	}
	if l.enrollment != nil && l.enrollment.accountID != creds.AccountID {
		l.log.Info("the account has changed: its own enrollment is used")
		l.enrollment, l.conflicts, l.renewed = nil, 0, false
	}
	if l.enrollment == nil {
		l.enrollment = l.stored(ctx, creds.AccountID)
	}
	if l.enrollment == nil {
		if f := l.enroll(ctx, creds); f != nil {
			return nil, creds, f
		}
	}
	f = l.ensureToken(ctx, creds)
	if f != nil && f.kind == notFound {
		// the backend does not know it: a new one, in the same attempt
		l.clear(ctx)
		if f = l.enroll(ctx, creds); f == nil {
			f = l.ensureToken(ctx, creds)
		}
	}
	if f != nil {
		return nil, creds, f
	}
	l.status.update(func(s *facts) {
		s.enrolled(l.enrollment)
		s.passing(stateConnecting, "connecting to the backend")
	})
	ws, used, f := l.backend.connect(ctx, creds, l.enrollment, l.clients.cursor())
	l.enrollment.fresh = false // from now on the clocks count
	if f != nil {
		if ctx.Err() == nil {
			f = l.socketRefused(ctx, creds, used, f)
		}
		return nil, creds, f
	}
	l.conflicts = 0
	l.host.CredentialsAccepted(creds.Generation)
	return ws, creds, nil
}

// credentials asks the host. Its causes are the spec's texts (3.4), and are
// waited out.
func (l *loop) credentials(ctx context.Context) (pluginsdk.Credentials, *failure) {
	l.status.update((*facts).asking)
	told := l.news.generation() // before the question: what comes after it wakes
	creds, err := l.host.Credentials(ctx)
	l.known = max(told, creds.Generation)
	switch {
	case err == nil:
		l.status.update(func(s *facts) { s.unusable, s.account = "", creds.AccountID })
		return creds, nil
	case errors.Is(err, pluginsdk.ErrNoCredentials):
		l.status.update(func(s *facts) { s.unusable = oneLine(err.Error()) })
		return creds, &failure{kind: wouldBlock, text: err.Error(), err: err, auth: true, remedy: signInRemedy}
	case errors.Is(err, pluginsdk.ErrNotGranted):
		return creds, &failure{kind: permissionDenied, text: err.Error(), err: err, auth: true, held: true, user: true, remedy: grantRemedy}
	}
	return creds, &failure{kind: failedOther, text: "asking the host for credentials: " + err.Error(), err: err, auth: true, remedy: waitRemedy}
}

// stored returns the stored enrollment of an account, or nil.
func (l *loop) stored(ctx context.Context, accountID string) *enrollment {
	e, err := l.rows().load(ctx, accountID)
	if err != nil {
		if !errors.Is(err, pluginsdk.ErrNotFound) && ctx.Err() == nil {
			l.log.Warn("loading the enrollment: a new one is made", "error", err)
		}
		return nil
	}
	if l.cfg.Protocol == profile3 {
		e.serverName = l.cfg.ServerName // the host may have another name by now (spec 5)
	}
	return e
}

// enroll makes a new enrollment. That it cannot be stored is a warning, as the
// reference's first generations had it: this host can be reached, and enrolls
// again after a restart. (Its later ones refuse to connect.)
func (l *loop) enroll(ctx context.Context, creds pluginsdk.Credentials) *failure {
	l.status.update(func(s *facts) {
		s.enrolled(nil)
		s.passing(stateEnrolling, "enrolling this host")
	})
	e, f := l.backend.enroll(ctx, creds)
	if f != nil {
		if ctx.Err() == nil && f.kind == permissionDenied {
			f = l.unauthorized(ctx, creds, f, f.text)
		}
		return f
	}
	l.enrollment = e
	if err := l.rows().save(ctx, creds.AccountID, e, time.Now()); err != nil {
		l.log.Warn("failed to persist remote control enrollment in sqlite state db: " + err.Error())
	}
	return nil
}

// clear forgets the enrollment, here and in the host's state.
func (l *loop) clear(ctx context.Context) {
	e := l.enrollment
	l.enrollment = nil
	if e == nil {
		return
	}
	if err := l.rows().remove(ctx, e.accountID); err != nil {
		l.log.Warn("failed to clear stale remote control enrollment in sqlite state db: " + err.Error())
	}
	l.status.update(func(s *facts) { s.enrolled(nil) })
}

// ensureToken refreshes the server token if that is due (spec 2.8). A failure of
// kind notFound says that the enrollment is gone; the caller clears it.
func (l *loop) ensureToken(ctx context.Context, creds pluginsdk.Credentials) *failure {
	e := l.enrollment
	if l.cfg.Protocol != profile3 {
		return nil
	}
	need := e.need(time.Now())
	if need == refreshNone {
		return nil
	}
	if time.Now().Before(e.nextRefresh) {
		if need == refreshProactive {
			return nil
		}
		return &failure{kind: wouldBlock, until: e.nextRefresh, remedy: waitRemedy,
			text: "remote control server token refresh deferred until " + e.nextRefresh.UTC().Format(time.RFC3339)}
	}
	l.status.update(func(s *facts) {
		s.enrolled(e)
		s.passing(stateConnecting, "refreshing the server token")
	})
	token, f := l.backend.refresh(ctx, creds, e)
	if f == nil {
		l.issued(ctx, e, token)
		return nil
	}
	if ctx.Err() != nil {
		return f
	}
	if e.tokenless && f.answer != nil && f.kind != permissionDenied {
		e.askAgain = false // it still gives none, and is served without
		return nil
	}
	if f = l.refreshFailed(ctx, creds, e, f); f.kind == failedOther || f.kind == timedOut {
		// asked again: the token may have ended while the refresh was on its way
		if e.token != "" && e.need(time.Now()) != refreshRequired {
			l.log.Warn("refreshing the server token; the old one is good for some minutes", "error", f.text)
			return nil
		}
	}
	return f
}

// issued makes token that of e. Whether the backend gives tokens is stored, so
// that the next process does not ask one without refresh for it.
func (l *loop) issued(ctx context.Context, e *enrollment, token issuedToken) {
	before := e.tokenless
	e.issue(token)
	if e.tokenless == before {
		return
	}
	if err := l.rows().save(ctx, e.accountID, e, time.Now()); err != nil {
		l.log.Warn("failed to persist remote control enrollment in sqlite state db: " + err.Error())
	}
}

// refreshFailed draws the conclusions from a refresh that failed.
func (l *loop) refreshFailed(ctx context.Context, creds pluginsdk.Credentials, e *enrollment, f *failure) *failure {
	if f.kind == permissionDenied {
		e.dropToken(e.token)
		return l.unauthorized(ctx, creds, f, f.text)
	}
	if f.kind == timedOut || f.answer != nil && f.answer.transient() {
		e.nextRefresh = time.Now().Add(l.deferral(f))
	}
	return f
}

// deferral is how long a refresh is left alone.
func (l *loop) deferral(f *failure) time.Duration {
	if asked := f.retryAfter(); asked > 0 {
		return asked
	}
	return refreshDeferral + time.Duration(l.backoff.random.Int64N(int64(refreshJitter)+1))
}

// socketRefused draws the conclusions from a websocket that was not opened
// (spec 2.7, 3.6). f is the generic failure, and what is returned if there is
// nothing special about it.
func (l *loop) socketRefused(ctx context.Context, creds pluginsdk.Credentials, used pluginsdk.Secret, f *failure) *failure {
	a := f.answer
	if a == nil {
		return f
	}
	if a.code == http.StatusConflict {
		if a.html {
			return f // of something in front of the backend: it says nothing of the enrollment
		}
		return l.conflict(ctx, f)
	}
	l.conflicts = 0
	switch {
	case a.missingServer(), a.code == http.StatusNotFound && l.cfg.Protocol == profile2:
		l.log.Info("the backend does not know the enrollment any more: a new one is made", "server_id", l.enrollment.serverID)
		l.clear(ctx)
	case a.unauthorized():
		text := "remote control websocket auth failed with HTTP " + a.status()
		if used == "" {
			return l.unauthorized(ctx, creds, f, text)
		}
		l.enrollment.dropToken(used) // and nothing else: the enrollment may be as good as ever
		if a.policy() {
			return needsUser(f)
		}
		f.text, f.auth, f.remedy = text+"; refreshing server token before reconnect", true, waitRemedy
	}
	return f
}

// conflict is the failure for a 409: another host, a copy of this one perhaps,
// has the enrollment. A new one is made once; if that does not help, new ones
// would only pile up at the backend (spec 0.2, 8).
func (l *loop) conflict(ctx context.Context, f *failure) *failure {
	l.conflicts++
	said := f.line()
	switch {
	case l.renewed:
		f.held, f.remedy = true, twiceRemedy
		f.cause = "the backend refuses a new enrollment too: " + said
	case l.conflicts >= conflictLimit:
		l.log.Warn("the backend refused the enrollment with HTTP 409 three times in a row: a new one is made", "server_id", l.enrollment.serverID)
		l.clear(ctx)
		l.conflicts, l.renewed = 0, true
		f.cause, f.remedy = fmt.Sprintf("the enrollment is in use elsewhere, a new one is made: %s", said), waitRemedy
	}
	return f
}

// unauthorized runs one step of the host's recovery ladder (spec 3.6) because
// the account's token was refused. text is the error so far.
func (l *loop) unauthorized(ctx context.Context, creds pluginsdk.Credentials, f *failure, text string) *failure {
	if f.answer.policy() {
		return needsUser(f)
	}
	better, err := l.host.RecoverUnauthorized(ctx, creds.Generation)
	if err == nil {
		// the host's news of these very credentials is no reason to wake up
		l.known = max(l.known, better.Generation)
		return &failure{kind: failedOther, text: text + "; retrying after auth recovery", answer: f.answer, auth: true, remedy: waitRemedy}
	}
	if l.enrollment != nil {
		l.enrollment.askAgain = true // perhaps the backend wants a server token by now
	}
	return &failure{
		kind: wouldBlock, text: text + "; waiting for valid ChatGPT authentication", err: err, answer: f.answer, auth: true,
		cause: f.line() + "; " + oneLine(err.Error()), remedy: signInRemedy,
	}
}

// needsUser makes f a failure that only a person can end.
func needsUser(f *failure) *failure {
	f.kind, f.user, f.held, f.auth, f.remedy = permissionDenied, true, true, true, policyRemedy
	return f
}
