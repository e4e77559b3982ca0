package admin

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// mostRefused is how many connections are kept at a time only to say why they
// are refused; further ones are closed. None of them takes from those that are
// admitted more than a look at who has connected.
const mostRefused = 8

// A gate is the listener of the admin socket: it asks the host about everybody
// who connects.
type gate struct {
	*net.UnixListener
	admit func(*net.UnixConn) error
	slots chan struct{} // full: so many are being told why they are refused
}

func newGate(l *net.UnixListener, admit func(*net.UnixConn) error) *gate {
	return &gate{UnixListener: l, admit: admit, slots: make(chan struct{}, mostRefused)}
}

// Accept implements [net.Listener].
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.AcceptUnix()
		if err != nil {
			return nil, err
		}
		why := g.admit(c)
		if why == nil {
			return c, nil
		}
		select {
		case g.slots <- struct{}{}:
			return &refused{UnixConn: c, why: why, free: sync.OnceFunc(func() { <-g.slots })}, nil
		default:
			_ = c.Close()
		}
	}
}

// A refused is a connection on which every question has the same answer.
type refused struct {
	*net.UnixConn
	why  error
	free func()
}

func (r *refused) Close() error {
	r.free()
	return r.UnixConn.Close()
}

type whyKey struct{}

// remember keeps for the handler why a connection is refused.
func remember(ctx context.Context, c net.Conn) context.Context {
	if r, ok := c.(*refused); ok {
		return context.WithValue(ctx, whyKey{}, r.why)
	}
	return ctx
}

// admitted answers those who are refused, and leaves the others to h.
func admitted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if why, ok := r.Context().Value(whyKey{}).(error); ok {
			w.Header().Set("Connection", "close")
			http.Error(w, why.Error(), http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
