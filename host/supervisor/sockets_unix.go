//go:build unix

package supervisor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// listening refuses what no peer can be accepted from.
func listening(f *os.File) error {
	fd := int(f.Fd())
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoSocket, err)
	}
	// Of a unix socket, too; the systems without this option fail at the first
	// connection.
	accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if kind != unix.SOCK_STREAM || err == nil && accepts == 0 {
		return errors.New("it is no listening stream socket; systemd passes such a one for ListenStream= with Accept=no")
	}
	return nil
}

// takesIPv4 reports whether a socket that is bound to all addresses of IPv6 is
// bound to those of IPv4 as well.
func takesIPv4(f *os.File) bool {
	only, err := unix.GetsockoptInt(int(f.Fd()), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && only == 0
}
