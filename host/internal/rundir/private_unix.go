//go:build unix

package rundir

import (
	"fmt"
	"os"
	"syscall"
)

// private refuses a directory that others may enter, or that is another's.
func private(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("looking at the runtime directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("the runtime directory %s is not a directory", dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Getuid() {
		return fmt.Errorf("the runtime directory %s belongs to user %d, not to %d", dir, st.Uid, os.Getuid())
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the runtime directory %s is open to others (mode %v); chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}
