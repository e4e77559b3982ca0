package credentials

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/transporthost/transporthost/shared/transport"
)

const (
	// refreshLimit bounds one refresh, with the wait for other hosts.
	refreshLimit = 30 * time.Second
	// lockEvery is how often a lock that another host holds is tried.
	lockEvery = 50 * time.Millisecond
	// restTime is how long stale credentials are used as they are after a
	// refresh failed. A plugin that waits asks each second; the recovery from a
	// refusal does not rest.
	restTime = 30 * time.Second
)

var errRefreshSlow = fmt.Errorf("no answer within %v", refreshLimit)

// A flight is one refresh, which all who want the same wait for.
type flight struct {
	of   auth
	done chan struct{}
	err  error // set before done is closed
	cut  bool  // it ended because the context that it lived in did
}

// A failure is that of refreshing one set of credentials.
type failure struct {
	of  auth
	err error
	at  time.Time
}

// freshen refreshes stale credentials (spec §3.3). Whatever fails leaves them as
// they are: the backend decides whether they are still good.
func (s *Store) freshen(ctx context.Context) {
	a, _ := s.snapshot()
	if !a.stale(time.Now()) {
		return
	}
	s.look(ctx.Done(), reasonFile)
	s.mu.Lock()
	changed := s.auth != a
	resting := s.failed.of == a && time.Since(s.failed.at) < restTime
	s.mu.Unlock()
	if !changed && !resting {
		_ = s.refresh(ctx, a) // logged where it failed
	}
}

// refresh replaces a by newer tokens of the same account, if a is still what
// the store holds. One refresh at a time is under way, in this process and in
// all that share the file; its end does not depend on the caller who came first.
// A permanent failure is remembered: a is not tried again.
func (s *Store) refresh(ctx context.Context, a auth) error {
	for {
		s.mu.Lock()
		switch {
		case s.auth != a:
			now := s.auth
			s.mu.Unlock()
			return sameAccount(a, now)
		case s.running != nil && s.running.Err() != nil:
			s.mu.Unlock()
			return transport.ErrStopping
		case s.refused.of == a:
			err := s.refused.err
			s.mu.Unlock()
			return err
		}
		f := s.flight
		if f == nil {
			f = &flight{of: a, done: make(chan struct{})}
			s.flight = f
			if life := s.running; life != nil {
				s.flights.Go(func() { s.fly(life, f) })
				s.mu.Unlock()
			} else { // before Run there is nobody else who would wait for it
				s.mu.Unlock()
				s.fly(ctx, f)
			}
		} else {
			s.mu.Unlock()
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if f.of == a && !(f.cut && ctx.Err() == nil) {
			return f.err
		}
	}
}

// sameAccount returns nil if now are other credentials of the account of a.
func sameAccount(a, now auth) error {
	if now.mode != ChatGPT || now.tokens.account != a.tokens.account {
		return permanent(textSignedOut)
	}
	return nil
}

// fly is one refresh from its begin to its end.
func (s *Store) fly(life context.Context, f *flight) {
	ctx, cancel := context.WithTimeoutCause(life, refreshLimit, errRefreshSlow)
	defer cancel()
	s.log.Debug("refreshing the credentials", "account", transport.ShortAccount(f.of.tokens.account))
	f.err = s.renew(ctx, f.of)
	f.cut = f.err != nil && life.Err() != nil

	s.mu.Lock()
	s.flight = nil
	// Others by now: it was the file that said so, and it may say these again.
	if f.err != nil && !f.cut && s.auth == f.of {
		s.failed = failure{of: f.of, err: f.err, at: time.Now()}
		if _, ok := errors.AsType[permanent](f.err); ok {
			s.refused = s.failed
		}
		s.refreshError = f.err.Error()
	}
	s.mu.Unlock()
	close(f.done)
	if f.err != nil {
		s.log.Warn("refreshing the credentials", "error", f.err)
	}
}

// renew refreshes a under the lock of the file.
func (s *Store) renew(ctx context.Context, a auth) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// Another host may have refreshed while this one waited for the lock. The
	// refresh token has been used then, and using it twice ends the session.
	s.look(ctx.Done(), reasonFile)
	if now, _ := s.snapshot(); now != a {
		return sameAccount(a, now)
	}
	answer, err := s.askForTokens(ctx, a.tokens)
	if err != nil {
		return err
	}
	return s.keep(a, answer)
}

// lock takes the lock that keeps other hosts from refreshing. It lies beside
// the file that links lead to, where all meet that share it; the file itself
// cannot be locked, for a rename replaces it. It is never removed: somebody may
// be waiting for it. Without a place for a lock there is none.
func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	file, err := filepath.EvalSymlinks(s.opts.File)
	if err != nil {
		return func() {}, nil // the look that follows says what is wrong
	}
	l := flock.New(file+".lock", flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockEvery); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("waiting for another host that refreshes: %w", context.Cause(ctx))
		}
		s.log.Warn("refreshing without a lock against other hosts", "error", err)
		return func() {}, nil
	}
	return func() {
		if err := l.Close(); err != nil {
			s.log.Warn("unlocking the credentials", "error", err)
		}
	}, nil
}

// keep saves and adopts what a refresh of a brought. Somebody may have signed in
// or out meanwhile, in which case the file is right. A file that cannot be read
// says no such thing: a's refresh token is used up, and the new one is all there
// is.
func (s *Store) keep(a auth, answer tokens) error {
	s.disk.Lock()
	defer s.disk.Unlock()
	r, _ := s.settled(nil) // whoever stops waits for this
	said := a              // by the file, if nobody has touched it
	if !s.superseded.none() {
		said = s.superseded
	}
	if !r.unreadable && (r.auth.mode != ChatGPT || r.auth.tokens != a.tokens && r.auth != said) {
		s.supersede(auth{}, nil)
		s.adopt(r.auth, r.problem, reasonFile)
		return sameAccount(a, r.auth)
	}
	fresh := a
	fresh.tokens = answer
	fresh.lastRefresh = time.Now().UTC().Round(0) // no monotonic part: it is compared with what is read
	if err := s.save(r, fresh); err != nil {
		if !r.unreadable {
			said = r.auth
		}
		s.supersede(said, err)
		s.log.Error("saving the refreshed credentials; they are lost if the host ends now", "error", err)
	} else {
		s.supersede(auth{}, nil)
	}
	s.adopt(fresh, "", "refreshed")
	return nil
}

// save writes a into the file, which was read as r.
func (s *Store) save(r reading, a auth) error {
	if r.unreadable {
		return errors.New(r.problem)
	}
	content, err := replaced(r.content, a)
	if err != nil {
		return err
	}
	return s.write(s.opts.File, content)
}

// saveAgain tries to save what a refresh brought and could not be saved then. It
// waits for a file that is just being written, but not beyond the end of done.
func (s *Store) saveAgain(done <-chan struct{}) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if s.superseded.none() {
		return
	}
	r, ok := s.settled(done)
	if !ok || !r.unreadable && r.auth != s.superseded {
		return // the look that follows adopts it
	}
	a, _ := s.snapshot()
	if err := s.save(r, a); err != nil {
		s.supersede(s.superseded, err)
		s.log.Debug("saving the refreshed credentials", "error", err)
		return
	}
	s.supersede(auth{}, nil)
	s.log.Info("saved the refreshed credentials")
}
