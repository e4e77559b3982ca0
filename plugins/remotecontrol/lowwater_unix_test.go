//go:build linux || darwin

package remotecontrol

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnsentBytesAreFew: the system keeps little of ours that it has not sent.
func TestUnsentBytesAreFew(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := newDialer(config{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.net(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	if err := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) }); err != nil || got != unsentBytes {
		t.Errorf("the system keeps %d bytes, want %d: %v", got, unsentBytes, err)
	}
}
