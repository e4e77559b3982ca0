package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program that tries what it must not do. It is this test binary again,
// executed in a sandbox.

// attempt names in the environment what the program is to try; where is the
// directory of the scene.
const (
	attempt = "TEST_SANDBOX_ATTEMPT"
	where   = "TEST_SANDBOX_SCENE"
)

// atBirth and openAtBirth are how the process was before its main, and before
// anybody's init that imports this package.
var (
	openAtBirth = openDescriptors()
	atBirth     = ownStatus()
)

// openDescriptors are those that came with the execution. What Go opens itself
// would not survive another one.
func openDescriptors() (open []int) {
	for fd := range 64 {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			open = append(open, fd)
		}
	}
	return open
}

func TestMain(m *testing.M) {
	switch os.Getenv(attempt) {
	case "":
		os.Exit(m.Run())
	case "everything":
		tryEverything(os.Getenv(where))
	case "another processor's call":
		callAsI386()
		fmt.Print("lives")
	case "wait":
		fmt.Println(os.Getpid())
		select {}
	}
	os.Exit(0)
}

// ownStatus returns what the kernel says of the confinement of this process.
func ownStatus() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name == "NoNewPrivs" || name == "Seccomp" {
			found = append(found, name+" "+strings.TrimSpace(value))
		}
	}
	return strings.Join(found, ", ")
}

// outcome is the name of an errno, "ok", or another error's text.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// raw makes a system call; what it opens is closed.
func raw(number uintptr, args ...uintptr) string {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	switch number {
	case unix.SYS_SOCKET, unix.SYS_IO_URING_SETUP, unix.SYS_BPF, unix.SYS_FSOPEN, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN:
		_ = syscall.Close(int(r))
	}
	return "ok"
}

func socket(family, kind, protocol uintptr) string {
	return raw(unix.SYS_SOCKET, family, kind|unix.SOCK_CLOEXEC, protocol)
}

func tryEverything(scene string) {
	at := func(name string) string { return filepath.Join(scene, name) }
	read := func(path string) string {
		_, err := os.ReadFile(path)
		return outcome(err)
	}
	write := func(path string) string {
		return outcome(os.WriteFile(path, []byte("x"), 0o600))
	}
	path := func(s string) uintptr {
		p, err := unix.BytePtrFromString(s)
		if err != nil {
			panic(err)
		}
		return uintptr(unsafe.Pointer(p))
	}
	connect := func(network, address string) string {
		c, err := net.Dial(network, address)
		if err == nil {
			_ = c.Close()
		}
		return outcome(err)
	}
	limit := func(resource int) string {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(resource, &l); err != nil {
			return outcome(err)
		}
		return fmt.Sprint(l.Max)
	}
	parent := uintptr(os.Getppid())
	flip := func() string { // a listener becomes a connection, without connect
		const listener = 3
		if err := unix.Shutdown(listener, unix.SHUT_RD); err != nil {
			return "shutdown: " + outcome(err)
		}
		to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}
		return outcome(unix.Sendto(listener, []byte("x"), unix.MSG_FASTOPEN, to))
	}
	datagram := func() string { // sent to where nobody connected
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return outcome(err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		return outcome(unix.Sendto(pair[0], []byte("x"), 0, &unix.SockaddrUnix{Name: at("other/datagrams")}))
	}
	start := func() string {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err == nil {
			_, err = p.Wait()
		}
		return outcome(err)
	}
	var pdeathsig int
	_ = unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&pdeathsig)), 0, 0, 0)
	exe, _ := os.Executable()
	got := map[string]string{
		"at birth":                atBirth,
		"read its program":        read(exe),
		"read auth.json":          read(at("home/auth.json")),
		"list its directory":      outcome(func() error { _, err := os.ReadDir(at("home")); return err }()),
		"read what is named":      read(at("certs/cert.pem")),
		"read beside that":        read(at("certs/renewed.pem")),
		"change what is named":    write(at("certs/cert.pem")),
		"read a stranger's file":  read(at("other/file")),
		"write a stranger's file": write(at("other/file")),
		"truncate it":             raw(unix.SYS_TRUNCATE, path(at("other/file")), 0),
		"chmod it":                raw(unix.SYS_FCHMODAT, ^uintptr(99), path(at("other/file")), 0o600),
		"write its own":           write(at("private/file")),
		"execute its own":         outcome(func() error { return become(at("private/file")) }()),
		"read /etc/hosts":         read("/etc/hosts"),
		"read a parent's memory":  read(fmt.Sprintf("/proc/%d/environ", parent)),
		"write /dev/null":         write("/dev/null"),
		"socket TCP":              socket(unix.AF_INET, unix.SOCK_STREAM, 0),
		"socket TCP6":             socket(unix.AF_INET6, unix.SOCK_STREAM, 0),
		"socket UDP":              socket(unix.AF_INET, unix.SOCK_DGRAM, 0),
		"socket MPTCP":            socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
		"socket MPTCP disguised":  socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP|1<<32),
		"socket raw":              socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"socket packet":           socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0),
		"socket vsock":            socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		"socket vsock disguised":  socket(unix.AF_VSOCK|1<<32, unix.SOCK_STREAM, 0),
		"socket algorithms":       socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		"socket bluetooth":        socket(unix.AF_BLUETOOTH, unix.SOCK_STREAM, 0),
		"socket netlink route":    socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
		"socket netlink other":    socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT),
		"socket unix":             socket(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"socket unix datagram":    socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0),
		"connect to a path":       connect("unix", at("other/socket")),
		"connect to a name":       connect("unix", "@"+at("other/socket")),
		"listener to connection":  flip(),
		"datagram from a pair":    datagram(),
		"io_uring":                raw(unix.SYS_IO_URING_SETUP, 1, 0),
		"ptrace":                  raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, parent, 0, 0),
		"read memory":             raw(unix.SYS_PROCESS_VM_READV, parent, 0, 0, 0, 0, 0),
		"mount":                   raw(unix.SYS_MOUNT, path("none"), path(at("nothing")), path("tmpfs"), 0, 0),
		"fsopen":                  raw(unix.SYS_FSOPEN, path("tmpfs"), 0),
		"bpf":                     raw(unix.SYS_BPF, 0, 0, 0),
		"perf":                    raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0),
		"userfaultfd":             raw(unix.SYS_USERFAULTFD, 0),
		"keys":                    raw(unix.SYS_KEYCTL, 0, 0, 0),
		"unshare":                 raw(unix.SYS_UNSHARE, unix.CLONE_NEWUTS),
		"setns":                   raw(unix.SYS_SETNS, 0, 0),
		"chroot":                  raw(unix.SYS_CHROOT, path("/")),
		"clone3":                  raw(unix.SYS_CLONE3, 0, 0),
		"a call of tomorrow":      raw(2000),
		"process":                 start(),
		"signal its parent":       raw(unix.SYS_KILL, parent, 0),
		"limit its parent":        raw(unix.SYS_PRLIMIT64, parent, unix.RLIMIT_NOFILE, 0, 0),
		"leave its group":         raw(unix.SYS_SETPGID, 0, uintptr(unix.Getpgrp())),
		"outlive its parent":      raw(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0),
		"signal at its end":       fmt.Sprint(pdeathsig),
		"core":                    limit(unix.RLIMIT_CORE),
		"files":                   limit(unix.RLIMIT_NOFILE),
		"memory":                  limit(unix.RLIMIT_DATA),
		"arguments":               fmt.Sprint(os.Args),
		"descriptors":             fmt.Sprint(openAtBirth),
	}
	_ = json.NewEncoder(os.Stdout).Encode(got)
}

// become tries to become a program.
func become(path string) error {
	if err := os.Chmod(path, 0o700); err != nil && !errors.Is(err, syscall.EPERM) {
		return err
	}
	return syscall.Exec(path, []string{path}, nil)
}
