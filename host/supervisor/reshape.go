package supervisor

import (
	"context"
	"errors"
	"net/url"
	"slices"
)

// Reshape returns listeners of other addresses. What both have, they share;
// the rest is bound. On an error nothing has changed. Once it is settled which
// of the two is used, [Listeners.CloseUnless] of the other closes what the used
// one does not have. Listeners that have not been bound stay so.
func (ls *Listeners) Reshape(ctx context.Context, addresses []string) (*Listeners, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	next := NewListeners(addresses, ls.passed)
	if !ls.done {
		return next, nil
	}
	for _, a := range addresses {
		b, shared := ls.sharingLocked(a)
		if !shared {
			var err error
			if b, err = ls.bind(ctx, a); err != nil {
				return nil, errors.Join(err, next.closeLocked(ls.list))
			}
		}
		next.list = append(next.list, b)
	}
	next.done = true
	return next, nil
}

// sharingLocked returns the socket that serves another address too: the same
// one, or one that differs in what is spoken there.
func (ls *Listeners) sharingLocked(address string) (bound, bool) {
	for i, b := range ls.list {
		have := ls.addresses[i]
		if have == address {
			return b, true
		}
		old, err := url.Parse(have)
		u, otherErr := url.Parse(address)
		if err != nil || otherErr != nil || !tcp(old) || !tcp(u) || old.Host != u.Host {
			continue
		}
		if was, err := url.Parse(b.url); err == nil {
			u.Host = was.Host // with the port that was bound
			b.url = u.String()
		}
		return b, true
	}
	return bound{}, false
}

func tcp(u *url.URL) bool { return slices.Contains([]string{"ws", "wss"}, u.Scheme) && u.Host != "" }

// CloseUnless is Close of the sockets that used does not have.
func (ls *Listeners) CloseUnless(used *Listeners) error {
	if ls == used {
		return nil
	}
	used.mu.Lock()
	kept := slices.Clone(used.list)
	used.mu.Unlock()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.closeLocked(kept)
}
