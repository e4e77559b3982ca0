//go:build unix

package unixsocket

import (
	"errors"
	"os"
	"syscall"
)

// tryLock reports false if somebody else has the lock.
func tryLock(dir *os.File) bool {
	return !errors.Is(syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
