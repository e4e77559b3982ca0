package pluginsdk

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
)

// File returns the open file that the host passed under this name, such as
// "stdin". It is the caller's to close, and is handed out once.
func (h *Host) File(name string) (*os.File, error) {
	for _, f := range h.params.Inherited {
		if f.Name == name {
			return h.take(f.FD, name)
		}
	}
	return nil, fmt.Errorf("the host passed no file %q", name)
}

func (h *Host) take(fd int, name string) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken[fd] {
		return nil, fmt.Errorf("the file %q was taken before", name)
	}
	makePollable(fd)
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, fmt.Errorf("the file %q has the descriptor %d, which is not valid", name, fd)
	}
	h.taken[fd] = true
	return f, nil
}

// Listen returns the i-th listener of this instance's configuration, and the
// address that peers use, with the port that was really bound. The host binds
// the sockets and passes them, so that peers wait in the kernel's queue while
// a process is replaced; where it could not pass them, Listen binds address
// itself.
func (h *Host) Listen(ctx context.Context, i int, address string) (net.Listener, string, error) {
	name := "listen:" + strconv.Itoa(i)
	for _, f := range h.params.Inherited {
		if f.Name != name {
			continue
		}
		file, err := h.take(f.FD, name)
		if err != nil {
			return nil, "", err
		}
		defer file.Close() // FileListener has its own descriptor
		l, err := net.FileListener(file)
		if err != nil {
			return nil, "", fmt.Errorf("using the inherited socket for %s: %w", f.URL, err)
		}
		return l, f.URL, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, "", fmt.Errorf("%w: listen: %w", ErrInvalidConfig, err)
	}
	var lc net.ListenConfig
	if u.Scheme == "unix" {
		l, err := lc.Listen(ctx, "unix", u.Path)
		return l, address, err
	}
	l, err := lc.Listen(ctx, "tcp", u.Host)
	if err != nil {
		return nil, "", err
	}
	u.Host = l.Addr().String()
	return l, u.String(), nil
}
