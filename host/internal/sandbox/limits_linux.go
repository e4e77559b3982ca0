package sandbox

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// limit sets the resource limits that the kernel keeps. The number of processes
// is none of them: that counts all processes of the user, whoever started them.
func limit(p Policy, r *Report) {
	for _, l := range []struct {
		resource int
		most     uint64
		text     func(uint64) string
	}{
		// Cores hold secrets, and land in directories of others.
		{syscall.RLIMIT_CORE, 0, func(uint64) string { return "no core dumps" }},
		{syscall.RLIMIT_NOFILE, p.Files, func(n uint64) string { return fmt.Sprintf("open files ≤ %d", n) }},
		// Of data, and not of addresses, of which Go and the race detector reserve
		// far more than they use.
		{syscall.RLIMIT_DATA, p.Memory, func(n uint64) string { return "memory ≤ " + Bytes(n) }},
	} {
		var now syscall.Rlimit
		err := syscall.Getrlimit(l.resource, &now)
		most := min(l.most, now.Max)
		if err == nil {
			// That of package syscall forgets what Go restores before it executes.
			err = syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: most, Max: most})
		}
		if err != nil {
			r.lack("%s: %v", l.text(most), err)
			continue
		}
		r.Enforced = append(r.Enforced, l.text(most))
	}
}

// kept are the capabilities that a plugin of root keeps: to read files of other
// users that the rules for files open to it, and to bind a low port if it has
// sockets of its own.
func kept(p Policy) uint64 {
	keep := uint64(1) << unix.CAP_DAC_OVERRIDE
	if p.Network {
		keep |= 1 << unix.CAP_NET_BIND_SERVICE
	}
	return keep
}

// dropCapabilities takes root's privileges away, with which limits could be
// raised again and the system be changed. An ordinary user has none.
func dropCapabilities(p Policy, r *Report) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		r.lack("capabilities: %v", err)
		return
	}
	permitted := uint64(have[0].Permitted) | uint64(have[1].Permitted)<<32
	if permitted == 0 && os.Getuid() != 0 {
		return
	}
	keep := kept(p)
	for c := range unix.CAP_LAST_CAP + 1 {
		if keep&(1<<c) == 0 {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) // with no_new_privs the permitted ones bound it too
		}
	}
	left := permitted & keep
	low, high := uint32(left), uint32(left>>32)
	set := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	if err := unix.Capset(&header, &set[0]); err != nil {
		r.lack("capabilities: %v", err)
		return
	}
	if p.Network {
		r.Enforced = append(r.Enforced, "no capabilities but dac_override and net_bind_service")
	} else {
		r.Enforced = append(r.Enforced, "no capabilities but dac_override")
	}
}
