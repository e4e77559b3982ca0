//go:build linux || darwin

package remotecontrol

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentBytes is what the system may have of ours and not have sent yet: enough
// to keep it busy, and little enough that what is written next is sent soon. The
// megabytes that it takes otherwise are all in front of the next client's
// answer.
const unsentBytes = 128 << 10

// lowWater keeps short what waits in the system before it is sent. It is for
// [net.Dialer].Control. A system that does not know the option does without.
func lowWater(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytes)
	})
}
