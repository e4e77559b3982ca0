//go:build !linux

package catalog

import (
	"crypto/sha256"
	"os"
)

// verified returns the file at path, which is open as src, for execution, if its
// checksum is want. Here somebody who may write the file could still change it between check and
// execution; the permission rules of [Scan] are what stands against that.
func verified(src *os.File, path string, want [sha256.Size]byte) (Executable, error) {
	got, err := sumOf(src)
	if err != nil {
		return Executable{}, err
	}
	if err := match(path, got, want); err != nil {
		return Executable{}, err
	}
	return Executable{Path: path}, nil
}
