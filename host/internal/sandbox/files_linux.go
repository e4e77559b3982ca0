package sandbox

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Sets of rights. Execution is apart: what a plugin may write, it may not
// execute.
const (
	readFile   landlock.AccessFSSet = llsyscall.AccessFSReadFile
	readDir    landlock.AccessFSSet = readFile | llsyscall.AccessFSReadDir
	execute    landlock.AccessFSSet = llsyscall.AccessFSExecute
	changeFile landlock.AccessFSSet = readFile | llsyscall.AccessFSWriteFile | llsyscall.AccessFSTruncate
	changeDir  landlock.AccessFSSet = readDir | changeFile | llsyscall.AccessFSRemoveDir | llsyscall.AccessFSRemoveFile |
		llsyscall.AccessFSMakeDir | llsyscall.AccessFSMakeReg | llsyscall.AccessFSMakeSock | llsyscall.AccessFSMakeFifo |
		llsyscall.AccessFSMakeSym
)

// landlockABI returns which of Landlock's versions is enforced here; 0: none.
func landlockABI() int {
	abi, err := llsyscall.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	const signalsFixed = 0x2
	if abi >= 6 { // the library uses the scopes only where threads of one process may signal each other
		if errata, err := llsyscall.LandlockGetErrata(); err != nil || errata&signalsFixed == 0 {
			return 5
		}
	}
	return abi
}

// restrictFiles makes everything unreachable that p does not name, as far as
// this kernel's Landlock can.
func restrictFiles(p Policy, r *Report) {
	abi := landlockABI()
	if abi == 0 {
		r.lack("files (this kernel has no Landlock, or does not let us use it)")
		return
	}
	config := landlock.V11
	if p.Network {
		config.HandledAccessNet = 0
	}
	fd, flags, err := config.BestEffort().NewRulesetFD(rules(p)...)
	if err == nil {
		err = llsyscall.LandlockRestrictSelf(fd, flags)
		_ = unix.Close(fd)
	}
	if err != nil {
		r.lack("files: %v", err)
		return
	}
	r.Enforced = append(r.Enforced, fmt.Sprintf("files (Landlock %d)", abi))
	for _, l := range []struct {
		abi  int
		what string
		need bool
	}{
		{3, "truncation of files", true},
		{5, "commands to devices", true},
		{6, "signals to others and abstract sockets", true},
		{9, "connections to others' unix sockets", p.Network},
	} {
		if l.need && abi < l.abi {
			r.lack("%s (Landlock %d; this kernel has %d)", l.what, l.abi, abi)
		}
	}
}

// rules are the paths of p that are there. One that cannot be looked at could
// not be used either.
func rules(p Policy) []landlock.Rule {
	var list []landlock.Rule
	add := func(paths []string, ofFile, ofDir landlock.AccessFSSet) {
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				continue
			}
			access := ofFile
			if info.IsDir() {
				access = ofDir
			}
			list = append(list, landlock.PathAccess(access, path).IgnoreIfMissing())
		}
	}
	add(p.Execute, readFile|execute, readDir|execute)
	add(p.Read, readFile, readDir)
	add(p.Write, changeFile, changeDir)
	add(p.Devices, changeFile, changeFile)
	return list
}
