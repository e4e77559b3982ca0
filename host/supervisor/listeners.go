package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/transporthost/transporthost/host/internal/unixsocket"
)

// Listeners are the sockets of one plugin instance. The host binds them and
// every process of the instance accepts from them: while none runs, peers wait
// in the kernel's queue.
type Listeners struct {
	addresses []string
	passed    *Sockets // what need not be bound; nil: nothing

	mu   sync.Mutex // guards what follows
	list []bound
	done bool // they were bound, whatever became of them
}

type bound struct {
	url  string // with the port that was bound
	l    net.Listener
	path string // of a unix socket whose file is ours, removed at the end
}

// NewListeners makes the listeners of addresses that are bound later, as far as
// they are not among passed, which may be nil.
func NewListeners(addresses []string, passed *Sockets) *Listeners {
	return &Listeners{addresses: addresses, passed: passed}
}

// Bind binds the addresses, in their order, if that has not been done. On an
// error nothing stays bound, and Bind can be tried again.
func (ls *Listeners) Bind(ctx context.Context) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.done {
		return nil
	}
	for _, a := range ls.addresses {
		b, err := ls.bind(ctx, a)
		if err != nil {
			_ = ls.closeLocked(nil)
			return err
		}
		ls.list = append(ls.list, b)
	}
	ls.done = true
	return nil
}

// URLs returns the bound addresses.
func (ls *Listeners) URLs() []string {
	if ls == nil {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	urls := make([]string, 0, len(ls.list))
	for _, b := range ls.list {
		urls = append(urls, b.url)
	}
	return urls
}

// Close stops listening and removes the files of unix sockets.
func (ls *Listeners) Close() error {
	if ls == nil {
		return nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.closeLocked(nil)
}

// closeLocked closes the sockets that are not kept.
func (ls *Listeners) closeLocked(kept []bound) error {
	var errs []error
	for _, b := range ls.list {
		if slices.ContainsFunc(kept, func(other bound) bool { return other.l == b.l }) {
			continue
		}
		errs = append(errs, b.l.Close())
		if b.path != "" {
			if err := os.Remove(b.path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	ls.list = nil
	return errors.Join(errs...)
}

// files returns duplicates of the sockets for a process to inherit. Where a
// process cannot inherit files there are none, and the plugin binds itself:
// then the host lets go of its own sockets first.
func (ls *Listeners) files() ([]*os.File, error) {
	if ls == nil {
		return nil, nil
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if runtime.GOOS == "windows" {
		return nil, ls.closeLocked(nil)
	}
	var files []*os.File
	for _, b := range ls.list {
		f, err := b.l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("passing the socket of %s: %w", b.url, err)
		}
		files = append(files, f)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func (ls *Listeners) bind(ctx context.Context, address string) (bound, error) {
	if l, err := ls.passed.take(address); l != nil || err != nil {
		return bound{url: address, l: l}, err
	}
	u, err := url.Parse(address)
	if err != nil {
		return bound{}, fmt.Errorf("listening on %q: %w", address, err)
	}
	switch u.Scheme {
	case "ws", "wss":
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", u.Host)
		if err != nil {
			return bound{}, describeBind(address, u.Host, err)
		}
		u.Host = l.Addr().String()
		return bound{url: u.String(), l: l}, nil
	case "unix":
		l, err := bindUnix(ctx, u.Path)
		if err != nil {
			return bound{}, fmt.Errorf("listening on %s: %w", address, err)
		}
		return bound{url: address, l: l, path: u.Path}, nil
	}
	return bound{}, fmt.Errorf("listening on %q: want ws://HOST:PORT, wss://HOST:PORT or unix:///PATH", address)
}

func describeBind(address, host string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := "another process"
		if h := portHolder(host); h != "" {
			holder = h
		}
		return fmt.Errorf("listening on %s: the port is in use by %s; stop it, or choose another port: %w", address, holder, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listening on %s: not allowed; ports below 1024 need a privilege: %w", address, err)
	}
	return fmt.Errorf("listening on %s: %w", address, err)
}

// bindUnix binds a unix socket that only this user can reach. A file that a
// dead process left is replaced (spec 8.5).
func bindUnix(ctx context.Context, path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("the directory of the socket: %w; create it first", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("socket directory path exists and is not a directory: %s", dir)
	}
	defer unixsocket.Lock(path)()
	if err := unixsocket.RemoveAbandoned(ctx, path); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		if strings.Contains(err.Error(), "invalid argument") && len(path) > 100 {
			return nil, fmt.Errorf("%w; the path has %d bytes, and the system allows about 107", err, len(path))
		}
		return nil, err
	}
	// The file is removed by Close, and not when a duplicate is closed.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		_ = os.Remove(path)
		return nil, err
	}
	return l, nil
}
