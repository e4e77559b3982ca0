//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const stampBytes = 32

// installPlugin copies a plugin from the folder bin into the plugin directory,
// in one step: who runs the old file goes on. A stamp behind its end makes it
// another build of the same program.
func installPlugin(bin string, d dirs, p part, stamp string) (err error) {
	name := "transport-" + string(p)
	from, err := os.Open(filepath.Join(bin, "plugins", name))
	if err != nil {
		return fmt.Errorf("installing a plugin (is it built? go run ./tools/dev build): %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(d.root, "new-"+name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err != nil {
		return fmt.Errorf("installing a plugin: %w", err)
	}
	_, err = io.Copy(to, from)
	if err == nil && stamp != "" {
		_, err = fmt.Fprintf(to, "%*s", stampBytes, stamp)
	}
	if closed := to.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(to.Name(), filepath.Join(d.plugins(), name))
	}
	if err != nil {
		return fmt.Errorf("installing a plugin: %w", err)
	}
	return nil
}

// stampOf reads the stamp of the program that a process executes.
func stampOf(pid int) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return "", fmt.Errorf("reading what process %d executes: %w", pid, err)
	}
	defer f.Close()
	end, err := f.Seek(-stampBytes, io.SeekEnd)
	if err != nil {
		return "", fmt.Errorf("reading what process %d executes: %w", pid, err)
	}
	text := make([]byte, stampBytes)
	if _, err := f.ReadAt(text, end); err != nil {
		return "", fmt.Errorf("reading what process %d executes: %w", pid, err)
	}
	return string(text), nil
}
