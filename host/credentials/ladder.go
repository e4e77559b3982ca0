package credentials

import (
	"context"
	"errors"
	"sync"

	"github.com/transporthost/transporthost/shared/transport"
)

// A Ladder is how one plugin instance recovers from credentials that its
// backend refuses (spec §3.6): it reads the file again, then refreshes the
// tokens, then waits for a person. Its methods may be called from any goroutine.
type Ladder struct {
	store *Store
	turn  chan struct{} // capacity 1: held by the call that takes a step

	mu         sync.Mutex // guards what follows
	recovery   *recovery
	generation uint64 // that recovery began with, or led to
}

// NewLadder makes the ladder of one plugin instance.
func (s *Store) NewLadder() *Ladder {
	l := &Ladder{store: s, turn: make(chan struct{}, 1)}
	l.renew()
	return l
}

// Recover takes one step, because the credentials of generation were refused,
// and returns what to try next. If the store has newer ones than those, it
// returns them without a step. If there is no step, or it fails, the file is
// read again, the ladder begins anew, and the error is
// [transport.ErrNoCredentials] with the cause: wait for better ones. Other errors
// are the cause of ctx, and [transport.ErrStopping].
func (l *Ladder) Recover(ctx context.Context, generation uint64) (transport.Credentials, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return transport.Credentials{}, context.Cause(ctx)
	}
	r, current := l.current()
	if generation < current {
		return l.store.now()
	}
	if err := r.next(ctx); err != nil {
		if ctx.Err() != nil {
			return transport.Credentials{}, context.Cause(ctx)
		}
		if errors.Is(err, transport.ErrStopping) {
			return transport.Credentials{}, err
		}
		l.store.look(ctx.Done(), "read again after a refusal")
		l.renew()
		return transport.Credentials{}, unusable(err.Error())
	}
	l.keep(r)
	return l.store.now()
}

// Accepted tells that a backend accepted the credentials of generation: the
// next refusal is recovered from with the first step. It waits for nobody.
func (l *Ladder) Accepted(generation uint64) {
	l.mu.Lock()
	stale := generation < l.generation
	l.mu.Unlock()
	if !stale {
		l.renew()
	}
}

// renew begins anew with the credentials as they are.
func (l *Ladder) renew() {
	a, generation := l.store.snapshot()
	l.mu.Lock()
	l.recovery, l.generation = &recovery{store: l.store, account: a.tokens.account}, generation
	l.mu.Unlock()
}

// current returns the recovery under way and the store's generation. If that
// changed without the recovery's doing, it is a new one.
func (l *Ladder) current() (*recovery, uint64) {
	_, generation := l.store.snapshot()
	l.mu.Lock()
	same := generation == l.generation
	l.mu.Unlock()
	if !same {
		l.renew()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recovery, l.generation
}

// keep notes that the store's generation is r's doing, unless r was replaced
// while it took its step.
func (l *Ladder) keep(r *recovery) {
	_, generation := l.store.snapshot()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recovery == r {
		l.generation = generation
	}
}

// A step is the next one of a recovery.
type step uint8

const (
	stepReload step = iota
	stepRefresh
	stepDone
)

// A recovery is the reference's: three steps, for the account that it began
// with.
type recovery struct {
	store   *Store
	account string // "" if it was unknown
	step    step
}

// next takes one step.
func (r *recovery) next(ctx context.Context) error {
	a, _ := r.store.snapshot()
	if a.mode != ChatGPT {
		return unusable(textNoSteps)
	}
	switch r.step {
	case stepReload:
		r.store.look(ctx.Done(), "read again after a refusal")
		if a, _ = r.store.snapshot(); !r.mine(a) {
			r.step = stepDone
			return unusable(textSignedOut)
		}
		r.step = stepRefresh
		return nil
	case stepRefresh:
		if !r.mine(a) {
			return unusable(textSignedOut)
		}
		if err := r.store.refresh(ctx, a); err != nil {
			return err // the step stays: what failed may work next time
		}
		r.step = stepDone
		return nil
	}
	return unusable(textNoSteps)
}

// mine reports whether a are credentials of the account.
func (r *recovery) mine(a auth) bool {
	return r.account != "" && a.mode == ChatGPT && a.tokens.account == r.account
}
