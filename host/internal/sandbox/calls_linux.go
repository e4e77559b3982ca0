package sandbox

import (
	"math"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// denied are the system calls that a transport never needs. What fails, fails
// with EPERM: a library that only tries goes on.
func denied(p Policy) []string {
	names := []string{
		// other processes
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_getfd",
		"migrate_pages", "move_pages",
		// leaving the process group that the host ends
		"setpgid", "setsid",
		// the tree of files
		"mount", "umount", "umount2", "pivot_root", "chroot", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount",
		"open_tree", "open_tree_attr", "mount_setattr", "open_by_handle_at", "name_to_handle_at", "mknod", "mknodat",
		"fanotify_init", "quotactl", "quotactl_fd", "nfsservctl", "uselib",
		// namespaces
		"setns", "unshare",
		// the kernel, and the keys that it holds
		"bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "init_module", "finit_module",
		"delete_module", "create_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "syslog",
		"iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "lookup_dcookie", "vhangup", "sethostname", "setdomainname",
		"settimeofday", "clock_settime", "stime", "adjtimex", "clock_adjtime", "lsm_set_self_attr",
		// what no filter sees into
		"io_uring_setup", "io_uring_enter", "io_uring_register", "socketcall", "ipc",
		// what other processes share
		"shmget", "shmat", "msgget", "semget", "mq_open",
	}
	if !p.Metadata {
		// Landlock does not keep modes, owners and times.
		names = append(names, "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "setxattr", "lsetxattr", "setxattrat",
			"removexattr", "lremovexattr", "removexattrat", "utime", "utimes", "futimesat")
	}
	if !p.Network {
		names = append(names, "connect")
	}
	if !p.Processes {
		names = append(names, "fork", "vfork")
	}
	return names
}

// A condition refuses a call by its arguments: if one of any matches, which it
// does if all of its parts do.
type condition struct {
	name  string
	errno unix.Errno
	any   []seccomp.ArgumentConditions
}

// all is one alternative.
func all(parts ...seccomp.Condition) seccomp.ArgumentConditions { return parts }

func arg(n uint32, operation seccomp.Operation, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: n, Operation: operation, Value: value}
}

// Bits of clone's flags that make namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// The kinds of sockets in the low bits of socket's second argument are 1
// (stream), 2 (datagram), 3 (raw), 4, 5, 6 and 10.
const (
	notStream   = 0xe // a bit of every kind but stream
	streamBit   = 0x1
	datagramBit = 0x2 // with streamBit: raw
	rareKinds   = 0xc // a bit of every kind from 4 on
)

// conditions are the calls that a transport needs, but not in every form. The
// kernel looks at the lower half of an argument that it calls an int; the tests
// see all of it, and refuse what has an upper half.
func conditions(p Policy, pid int) []condition {
	list := []condition{
		{"clone", unix.EPERM, []seccomp.ArgumentConditions{all(arg(0, seccomp.BitsSet, newNamespaces))}},
		// Limits of others; its own can only be lowered.
		{"prlimit64", unix.EPERM, []seccomp.ArgumentConditions{all(arg(0, seccomp.NotEqual, 0), arg(0, seccomp.NotEqual, uint64(pid)))}},
		{"personality", unix.EPERM, []seccomp.ArgumentConditions{all(arg(0, seccomp.NotEqual, 0), arg(0, seccomp.NotEqual, math.MaxUint32))}},
		{"socketpair", unix.EPERM, []seccomp.ArgumentConditions{all(arg(0, seccomp.NotEqual, unix.AF_UNIX))}},
	}
	if !p.Processes {
		list = append(list,
			condition{"clone", unix.EPERM, []seccomp.ArgumentConditions{all(arg(0, seccomp.BitsNotSet, unix.CLONE_THREAD))}},
			// The signal with which it dies when the host does.
			condition{"prctl", unix.EPERM, []seccomp.ArgumentConditions{all(arg(0, seccomp.Equal, unix.PR_SET_PDEATHSIG)), all(arg(0, seccomp.GreaterThan, math.MaxUint32))}})
	}
	if !p.Metadata {
		// Times of what is named; those of an open file have no name.
		list = append(list, condition{"utimensat", unix.EPERM, []seccomp.ArgumentConditions{all(arg(1, seccomp.NotEqual, 0))}})
	}
	if p.Network {
		return append(list, ownSockets()...)
	}
	return append(list, inheritedSockets()...)
}

// inheritedSockets leaves the sockets that the host gave, and the listener that
// the host itself reaches the plugin by.
func inheritedSockets() []condition {
	list := []condition{
		{"socket", unix.EPERM, []seccomp.ArgumentConditions{
			all(arg(0, seccomp.NotEqual, unix.AF_UNIX)),
			all(arg(1, seccomp.BitsSet, notStream)),
		}},
		// A datagram socket of a pair sends to any address, without connect.
		{"socketpair", unix.EPERM, []seccomp.ArgumentConditions{all(arg(1, seccomp.BitsSet, notStream))}},
	}
	// An inherited listener can be shut down, and a connection be made of it by
	// sending: without connect, and to anywhere.
	for name, flags := range map[string]uint32{"sendto": 3, "sendmsg": 2, "sendmmsg": 3} {
		list = append(list, condition{name, unix.EPERM, []seccomp.ArgumentConditions{all(arg(flags, seccomp.BitsSet, unix.MSG_FASTOPEN))}})
	}
	return list
}

// ownSockets leaves TCP and UDP, unix sockets, and what names of interfaces and
// addresses are looked up with.
func ownSockets() []condition {
	internet := []uint64{unix.AF_INET, unix.AF_INET6}
	families := []seccomp.ArgumentConditions{
		all(arg(0, seccomp.LessThan, unix.AF_UNIX)),
		all(arg(0, seccomp.GreaterThan, unix.AF_INET), arg(0, seccomp.LessThan, unix.AF_INET6)),
		all(arg(0, seccomp.GreaterThan, unix.AF_INET6), arg(0, seccomp.LessThan, unix.AF_NETLINK)),
		all(arg(0, seccomp.GreaterThan, unix.AF_NETLINK)),
		all(arg(0, seccomp.Equal, unix.AF_NETLINK), arg(2, seccomp.NotEqual, unix.NETLINK_ROUTE)),
		all(arg(1, seccomp.GreaterThan, math.MaxUint32)),
		all(arg(2, seccomp.GreaterThan, math.MaxUint32)),
	}
	for _, family := range internet {
		families = append(families,
			all(arg(0, seccomp.Equal, family), arg(1, seccomp.BitsSet, rareKinds)),
			all(arg(0, seccomp.Equal, family), arg(1, seccomp.BitsSet, streamBit), arg(1, seccomp.BitsSet, datagramBit)))
	}
	return []condition{
		{"socket", unix.EPERM, families},
		// As a kernel without it says: Go then uses TCP, and says nothing.
		{"socket", unix.EPROTONOSUPPORT, []seccomp.ArgumentConditions{all(arg(2, seccomp.Equal, unix.IPPROTO_MPTCP))}},
	}
}
