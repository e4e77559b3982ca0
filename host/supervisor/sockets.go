package supervisor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
)

// Sockets are listening sockets that somebody else bound before the host ran,
// such as a service manager. [Listeners] use the one that is bound to an address
// of theirs instead of binding that. They stay open as long as the host runs, so
// that listeners which are closed find them again.
type Sockets struct {
	list []socket
}

type socket struct {
	name     string
	l        net.Listener
	at       netip.AddrPort // of a TCP socket
	bothIPs  bool           // it takes IPv4 too, though it is bound to IPv6
	path     string         // of a unix socket
	describe string         // for people
}

var errNoSocket = errors.New("it is no socket")

// NewSockets takes the sockets of files, which it closes, also on an error; what
// is no socket it leaves alone. What their owner calls them is the names of the
// files.
func NewSockets(files []*os.File) (*Sockets, error) {
	s := &Sockets{}
	var errs []error
	for _, f := range files {
		one, err := newSocket(f)
		if !errors.Is(err, errNoSocket) { // which may be the runtime's own file, if the count was wrong
			_ = f.Close() // net has its own descriptor
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("using the socket %q that was passed to the host: %w", f.Name(), err))
			continue
		}
		for _, other := range s.list {
			if other.describe == one.describe {
				errs = append(errs, fmt.Errorf("the sockets %q and %q, which were passed to the host, are both bound to %s; pass one", other.name, one.name, one.describe))
			}
		}
		s.list = append(s.list, one)
	}
	if len(errs) > 0 {
		return nil, errors.Join(append(errs, s.Close())...)
	}
	return s, nil
}

func newSocket(f *os.File) (socket, error) {
	s := socket{name: f.Name()}
	if err := listening(f); err != nil {
		return s, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return s, err
	}
	s.l = l
	switch a := l.Addr().(type) {
	case *net.TCPAddr:
		at := a.AddrPort()
		s.at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		s.bothIPs = s.at.Addr() == netip.IPv6Unspecified() && takesIPv4(f)
		s.describe = s.at.String()
	case *net.UnixAddr:
		s.path, s.describe = a.Name, a.Name
		if !filepath.IsAbs(a.Name) {
			return s, errors.Join(fmt.Errorf("it is bound to %q, which is no path; no transport can listen there", a.Name), l.Close())
		}
	default:
		return s, errors.Join(fmt.Errorf("it is bound to %v (%s), want TCP or a unix socket", a, a.Network()), l.Close())
	}
	return s, nil
}

// isFor reports whether s is what binding address would give. 0.0.0.0 is also a
// socket that takes IPv4 and IPv6: a service manager makes that of a bare port.
func (s socket) isFor(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	if u.Scheme == "unix" {
		return s.path != "" && s.path == u.Path
	}
	at, err := netip.ParseAddrPort(u.Host)
	if err != nil || s.path != "" || at.Port() != s.at.Port() {
		return false
	}
	ip := at.Addr().Unmap()
	return ip == s.at.Addr() || s.bothIPs && ip == netip.IPv4Unspecified()
}

// take returns a listener of the socket that is bound to address, if there is
// one. It is the caller's to close.
func (s *Sockets) take(address string) (net.Listener, error) {
	if s == nil {
		return nil, nil
	}
	for _, one := range s.list {
		if !one.isFor(address) {
			continue
		}
		f, err := one.l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			return nil, fmt.Errorf("using the socket %q for %s: %w", one.name, address, err)
		}
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("using the socket %q for %s: %w", one.name, address, err)
		}
		return l, nil
	}
	return nil, nil
}

// Unused complains about each socket that none of addresses is bound to: who
// connects to it would wait for ever.
func (s *Sockets) Unused(addresses []string) error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, one := range s.list {
		used := false
		for _, a := range addresses {
			used = used || one.isFor(a)
		}
		if used {
			continue
		}
		scheme := "ws"
		if one.path != "" {
			scheme = "unix"
		}
		errs = append(errs, fmt.Errorf("the socket %q, bound to %s, was passed to the host, and no transport listens there; "+
			"put %s://%s among the addresses of a transport, or do not pass it", one.name, one.describe, scheme, one.describe))
	}
	return errors.Join(errs...)
}

// Close closes them here; their owner has them still, and a unix socket keeps
// its file.
func (s *Sockets) Close() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, one := range s.list {
		errs = append(errs, one.l.Close())
	}
	s.list = nil
	return errors.Join(errs...)
}
