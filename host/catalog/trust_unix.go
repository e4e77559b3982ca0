//go:build unix

package catalog

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// openFlags keep an open from waiting, should a file become a pipe meanwhile.
const openFlags = syscall.O_NONBLOCK | syscall.O_NOFOLLOW

// unsafeFile says why the file must not be run, or "": somebody else than this
// user and root could have made it what it is, or it would run as somebody else.
func unsafeFile(path string, info fs.FileInfo) string {
	switch {
	case info.Mode().Perm()&0o111 == 0:
		return "not executable; chmod +x " + path
	case info.Size() == 0:
		return "empty"
	case info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0:
		// It would also outlive the host: the system forgets then that it is to
		// die with it.
		return "it would run with the rights of its owner or group; chmod ug-s " + path
	}
	return changeableByOthers(path, info)
}

// unsafeDir says why nothing in dir must be run, or ""; info is that of the open
// directory. Of the directories above it, only those that everybody may write
// are refused: who else may put another directory in the place of this one can
// put there only what is his own.
func unsafeDir(dir string, info fs.FileInfo) string {
	if problem := changeableByOthers(filepath.Clean(dir), info); problem != "" {
		return "the directory " + problem
	}
	real, err := filepath.EvalSymlinks(dir)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "the directory cannot be looked at: " + err.Error()
	}
	for up := filepath.Dir(real); ; up = filepath.Dir(up) {
		info, err := os.Lstat(up)
		if err != nil {
			return "the directory above cannot be looked at: " + err.Error()
		}
		if everybody(info) {
			return fmt.Sprintf("the directory above, %s, is writable by everybody; chmod o-w %s", up, up)
		}
		if up == filepath.Dir(up) {
			return ""
		}
	}
}

// everybody reports whether all users may change what info tells of. A sticky
// directory does not let them replace what others own.
func everybody(info fs.FileInfo) bool {
	return info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0
}

// changeableByOthers says so if somebody else than this user and root may change
// path, and with it what the host runs.
func changeableByOthers(path string, info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	us := uint32(os.Geteuid())
	switch {
	case st.Uid != 0 && st.Uid != us:
		return fmt.Sprintf("%s belongs to user %d, neither to root nor to the user of the host, %d; chown it, or copy it as that user", path, st.Uid, us)
	case everybody(info):
		return fmt.Sprintf("%s is writable by everybody; chmod o-w %s", path, path)
	case info.Mode().Perm()&0o020 != 0 && info.Mode()&fs.ModeSticky == 0:
		if why := notOurGroup(st.Gid, us); why != "" {
			return fmt.Sprintf("%s is writable by the group %d, %s; chmod g-w %s", path, st.Gid, why, path)
		}
	}
	return ""
}
