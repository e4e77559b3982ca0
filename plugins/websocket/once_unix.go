//go:build unix

package websocket

import "syscall"

// canWriteOnce says that a socket can be written without waiting.
const canWriteOnce = true

// writeOnce writes what the socket takes now. Go's sockets do not block here.
func writeOnce(fd uintptr, b []byte) (int, error) { return syscall.Write(int(fd), b) }
