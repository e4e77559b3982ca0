package unixsocket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// abandon makes the file of a socket that a dead process has left.
func abandon(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
}

func TestRemoveAbandoned(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	if err := RemoveAbandoned(t.Context(), path); err != nil {
		t.Errorf("with no file: %v", err)
	}
	abandon(t, path)
	if err := RemoveAbandoned(t.Context(), path); err != nil {
		t.Errorf("of a dead process: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := RemoveAbandoned(t.Context(), path); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("of a live process: %v", err)
	}
	_ = l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAbandoned(t.Context(), path); !errors.Is(err, ErrNotSocket) {
		t.Errorf("of a plain file: %v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the plain file: %v", err)
	}
}

// TestAnOwnerThatDoesNotAccept: its queue is full, and it is there.
func TestAnOwnerThatDoesNotAccept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 10 { // more than fit
		if c, err := net.Dial("unix", path); err == nil {
			defer c.Close()
		}
	}
	if err := RemoveAbandoned(t.Context(), path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want one that says it is in use", err)
	}
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := t.TempDir()
	unlock := Lock(filepath.Join(dir, "a"))
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if tryLock(other) {
		t.Error("another one got the lock")
	}
	unlock()
	if !tryLock(other) {
		t.Error("the lock is held behind its end")
	}
	Lock(filepath.Join(dir, "none", "a"))() // of no directory
	Lock(filepath.Join(dir, "b"))()         // not to be had: it is done without
}
