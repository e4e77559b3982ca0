package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A filter is what the kernel asks about every system call: programs of which
// the strictest counts. They are several because the library's tests of
// arguments are exact only where no other test of arguments follows.
type filter struct {
	policy   Policy
	programs [][]unix.SockFilter
}

// newFilter makes the filter for the process with this pid.
func newFilter(p Policy, pid int) (*filter, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("their numbers are not known for this processor: %w", err)
	}
	f := &filter{policy: p}
	if err := f.add(gate(info)); err != nil {
		return nil, err
	}
	refused := seccomp.SyscallGroup{Action: refuse(unix.EPERM), Names: known(info, denied(p))}
	unknown := seccomp.SyscallGroup{Action: refuse(unix.ENOSYS), Names: known(info, []string{"clone3"})}
	if err := f.policyOf(refused, unknown); err != nil {
		return nil, err
	}
	for _, c := range conditions(p, pid) {
		if _, ok := info.SyscallNames[c.name]; !ok {
			continue
		}
		group := seccomp.SyscallGroup{Action: refuse(c.errno)}
		for _, all := range c.any {
			group.NamesWithCondtions = append(group.NamesWithCondtions, seccomp.NameWithConditions{Name: c.name, Conditions: all})
		}
		if err := f.policyOf(group); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return f, nil
}

func (f *filter) policyOf(groups ...seccomp.SyscallGroup) error {
	policy := seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: groups}
	return f.add(policy.Assemble())
}

func (f *filter) add(program []bpf.Instruction, err error) error {
	if err != nil {
		return err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	list := make([]unix.SockFilter, 0, len(raw))
	for _, i := range raw {
		list = append(list, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	f.programs = append(f.programs, list)
	return nil
}

// install sets the filter for this thread. From then on nothing can be taken
// from it, by nobody.
func (f *filter) install() error {
	for _, list := range f.programs {
		program := unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]}
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
		if errno == unix.ENOSYS || errno == unix.EINVAL {
			return errors.New("this kernel has no seccomp filters")
		}
		if errno != 0 {
			return errno
		}
	}
	return nil
}

// says is the filter in words.
func (f *filter) says() []string {
	list := []string{"system calls (seccomp)", "no sockets of its own", "no processes of its own"}
	if f.policy.Network {
		list[1] = "sockets of TCP, UDP and unix only"
	}
	if f.policy.Processes {
		list = list[:2]
	}
	return list
}

// Offsets in what a filter looks at.
const (
	offsetNumber = 0
	offsetArch   = 4
	wordBytes    = 4
)

// gate kills whoever uses the calls of another processor, whose numbers mean
// something else: the library's programs let those through. Calls that are newer
// than its list, and with them those of x32, do not exist.
func gate(info *arch.Info) ([]bpf.Instruction, error) {
	newest := slices.Max(slices.Collect(maps.Keys(info.SyscallNumbers)))
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: wordBytes},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
		bpf.LoadAbsolute{Off: offsetNumber, Size: wordBytes},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(newest), SkipFalse: 1},
		bpf.RetConstant{Val: uint32(refuse(unix.ENOSYS))},
		bpf.RetConstant{Val: uint32(seccomp.ActionAllow)},
	}, nil
}

// refuse is an action: the call fails with errno, and the program goes on.
func refuse(errno unix.Errno) seccomp.Action { return seccomp.ActionErrno | seccomp.Action(errno) }

// known returns the names that this processor has; some are of one only.
func known(info *arch.Info, names []string) []string {
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool {
		_, ok := info.SyscallNames[n]
		return !ok
	})
}
