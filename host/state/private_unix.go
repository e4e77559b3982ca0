//go:build unix

package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ownDirectory refuses a directory in which others may put another file in the
// state's place.
func ownDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if mode := info.Mode(); mode.Perm()&0o022 != 0 {
		return fmt.Errorf("others may write in the state directory %s (mode %v); chmod 700 %s", dir, mode.Perm(), dir)
	}
	return nil
}

// closeToOthers takes the rights of others to a file that is there already.
func closeToOthers(file string) error {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the state: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("the state %s is not a file", file)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(file, 0o600); err != nil {
			return fmt.Errorf("others may read the state: %w", err)
		}
	}
	return nil
}
