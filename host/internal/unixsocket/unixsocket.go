// Package unixsocket tells the files of unix sockets that somebody serves from
// those that a dead process left.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// dialTimeout is what a live owner of a socket gets to answer.
const dialTimeout = time.Second

// ErrNotSocket is returned for a file that is none.
var ErrNotSocket = errors.New("socket path exists and is not a socket")

// RemoveAbandoned removes the file of a socket that nobody listens on. It is no
// error if there is no file. Of a socket that is in use the error is
// [syscall.EADDRINUSE]. Nobody may bind the path meanwhile: see [Lock].
func RemoveAbandoned(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%w: %s", ErrNotSocket, path)
	}
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close()
	}
	// Whatever else happens, somebody may be there: one that is stopped, and
	// whose queue is full, does not answer.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("socket is already in use at %s: %w", path, syscall.EADDRINUSE)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the socket file of a dead process: %w", err)
	}
	return nil
}

const (
	lockLimit = time.Second
	lockPause = 5 * time.Millisecond
)

// Lock keeps others who lock it from looking at and making sockets, and
// directories of runs, in the directory of path, until unlock: without it, what
// one has found abandoned could be another's new one when it is removed. A lock
// that is not to be had within a second, or at all, is done without.
func Lock(path string) (unlock func()) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return func() {}
	}
	for deadline := time.Now().Add(lockLimit); !tryLock(dir) && time.Now().Before(deadline); {
		time.Sleep(lockPause)
	}
	return func() { _ = dir.Close() } // which unlocks it
}
