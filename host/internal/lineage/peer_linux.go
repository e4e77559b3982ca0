package lineage

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Peer returns the process that made the connection c. All that is said of it was
// true of that process after it had connected: one that has ended since is an
// error, because another may have its number. Only where the system has no
// handles on processes (before Linux 5.3, or forbidden) is the number trusted;
// before 6.5, from the connection being made until it is looked at.
//
// It is about who connected, and not about whom the connection was passed to.
func (r Run) Peer(c syscall.RawConn) (p Peer, err error) {
	var cred *unix.Ucred
	handle := -1
	if failed := c.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && cred.Pid != 0 {
			handle, err = hold(int(fd), int(cred.Pid))
		}
	}); failed != nil {
		err = failed
	}
	if err != nil {
		return Peer{}, fmt.Errorf("asking who has connected: %w", err)
	}
	if cred.Pid == 0 {
		// It is in none of the namespaces of processes that are ours or below it,
		// which no descendant can leave.
		return Peer{}, nil
	}
	if handle >= 0 {
		defer unix.Close(handle)
	}
	p, seen := r.look(int(cred.Pid))
	if ended(handle, p.PID) {
		return Peer{}, ErrPeerGone
	}
	// What is another user's is more than a process of ours can have become.
	if !seen && int(cred.Uid) == os.Geteuid() {
		return Peer{}, ErrPeerHidden
	}
	return p, nil
}

// hold returns a handle on the process that made a connection, or -1 where there
// are none.
func hold(connection, pid int) (handle int, err error) {
	handle, err = unix.GetsockoptInt(connection, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		handle, err = unix.PidfdOpen(pid, 0)
	}
	switch {
	case err == nil:
		return handle, nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return -1, nil
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODATA):
		return -1, ErrPeerGone
	}
	return -1, err
}

// ended reports whether a process has.
func ended(handle, pid int) bool {
	if handle < 0 {
		return errors.Is(unix.Kill(pid, 0), unix.ESRCH)
	}
	fds := []unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0 || err != nil
		}
	}
}

// look reads what the process with a number is known by now. seen reports
// whether there was anything to see: one half of a mark, or that it is not there.
func (r Run) look(pid int) (p Peer, seen bool) {
	p.PID = pid
	p.Group, _ = unix.Getpgid(pid) // 0: it is gone
	if l, err := lockLimit(pid); err == nil {
		seen = true
		if r.isLimit(l) {
			p.marks = append(p.marks, uint32(l))
		}
	}
	if environ, err := environOf(pid); err == nil {
		seen = true
		if child, ok, _ := childIn(environ, r); ok {
			p.marks = append(p.marks, child)
		}
	}
	return p, seen
}
