package catalog

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// verified returns the file at path, which is open as src, for execution, if its
// checksum is want. The bytes that were checked are those that run: they are
// copied into a sealed file in memory first, which nobody can change between
// check and execution.
func verified(src *os.File, path string, want [sha256.Size]byte) (Executable, error) {
	fd, err := unix.MemfdCreate("transport-plugin", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return Executable{}, fmt.Errorf("making a memory file for plugin %s: %w", path, err)
	}
	mem := os.NewFile(uintptr(fd), "transport-plugin")
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(mem, h), src); err != nil {
		_ = mem.Close()
		return Executable{}, fmt.Errorf("copying plugin %s: %w", path, err)
	}
	var got [sha256.Size]byte
	h.Sum(got[:0])
	if err := match(path, got, want); err != nil {
		_ = mem.Close()
		return Executable{}, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = mem.Close()
		return Executable{}, fmt.Errorf("sealing the copy of plugin %s: %w", path, err)
	}
	return Executable{Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), File: mem}, nil
}
