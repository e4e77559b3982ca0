package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrUntrusted is returned for a file that must not be run as a plugin, for the
// reason that is in the text.
var ErrUntrusted = errors.New("cannot be used")

// An Executable is a plugin's file, checked and ready to be executed.
type Executable struct {
	// Path is what to execute. Of a pinned plugin, on Linux, it names the very
	// bytes that were checked, in memory, and is valid until Close.
	Path string
	File *os.File // nil: Path is the file itself
}

// Open checks the file at path by the rules of [Scan], but for its name, and by
// its pinned checksum in hexadecimal, unless that is empty. All of it is done on
// one open file in one open directory, whatever happens to their names
// meanwhile. What keeps another file from having the name when Path is executed
// are the same rules; a pin, on Linux, needs no such trust.
func Open(path, pin string) (Executable, error) {
	dir, file := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	c, problem := examine(dir, file)
	defer c.close()
	if problem != "" {
		return Executable{}, untrusted(path, problem)
	}
	if pin == "" {
		return Executable{Path: path}, nil
	}
	want, err := ParseSum(pin)
	if err != nil {
		return Executable{}, err
	}
	return verified(c.f, path, want)
}

func untrusted(path, problem string) error {
	return fmt.Errorf("%s %w: %s", path, ErrUntrusted, problem)
}

// Close releases what an executable holds.
func (e Executable) Close() error {
	if e.File == nil {
		return nil
	}
	return e.File.Close()
}

// A candidate is an open file of a plugin directory.
type candidate struct {
	f    *os.File // nil: it could not be opened, or is nothing to open
	info fs.FileInfo
}

func (c candidate) close() {
	if c.f != nil {
		_ = c.f.Close()
	}
}

// examine opens a file of dir and says why it must not be run, or "". A symbolic
// link may point inside the directory (a version switch), and nowhere else.
func examine(dir, file string) (c candidate, problem string) {
	path := filepath.Join(dir, file)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return c, "cannot be looked at: " + err.Error()
	}
	defer root.Close()
	if c.info, err = root.Lstat(file); err != nil {
		return c, "cannot be looked at: " + err.Error()
	}
	if c.info.Mode()&fs.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return c, "a symbolic link that leads nowhere: " + err.Error()
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil || filepath.Dir(target) != real {
			return c, "a symbolic link out of the plugin directory, to " + target + "; put the file itself there"
		}
		file = filepath.Base(target)
		if c.info, err = root.Lstat(file); err != nil {
			return c, "cannot be looked at: " + err.Error()
		}
	}
	// Not opened before it is known to be regular: that alone can block, or start
	// something.
	for range 2 {
		if problem := notRegular(c.info.Mode()); problem != "" {
			return c, problem
		}
		if problem := unsafeFile(path, c.info); problem != "" {
			return c, problem
		}
		if c.f != nil {
			break
		}
		if c.f, err = root.OpenFile(file, os.O_RDONLY|openFlags, 0); err == nil {
			c.info, err = c.f.Stat() // it is one file from here on, whatever its name leads to
		}
		if err != nil {
			return c, "cannot be read: " + err.Error()
		}
	}
	info, err := root.Stat(".")
	if err != nil {
		return c, "the directory cannot be looked at: " + err.Error()
	}
	return c, unsafeDir(dir, info)
}

func notRegular(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return ""
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "not a regular file, but a named pipe"
	case mode&fs.ModeSocket != 0:
		return "not a regular file, but a socket"
	case mode&fs.ModeDevice != 0:
		return "not a regular file, but a device"
	}
	return "not a regular file"
}
