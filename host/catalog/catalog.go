// Package catalog finds plugins: it says of every file in a plugin directory
// whether it may be run as one, and if not, why.
package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Prefix begins the name of every plugin's executable.
const Prefix = "transport-"

// An Entry is one file of a plugin directory.
type Entry struct {
	Name     string    `json:"name,omitempty"` // of the transport; empty if the file is not named like one
	Path     string    `json:"path"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Problem  string    `json:"problem,omitempty"` // why it is not run; empty if it may be
}

// OK reports whether the file may be run as a plugin.
func (e Entry) OK() bool { return e.Problem == "" }

// ErrNotFound is returned when no directory has a plugin of that name.
var ErrNotFound = errors.New("plugin not found")

// Scan returns an entry for every file in dir, in the order of their names. It
// runs none of them.
func Scan(dir string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the plugin directory: %w", err)
	}
	dirProblem := writableByOthers(dir)
	entries := make([]Entry, 0, len(files))
	for _, f := range files {
		e := inspect(dir, f.Name())
		if e.Problem == "" {
			e.Problem = dirProblem
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Find returns the plugin called name from the first of dirs that has one. The
// error names what was looked at.
func Find(dirs []string, name string) (Entry, error) {
	file := Prefix + name + exeSuffix()
	var have []string
	for _, dir := range dirs {
		entries, err := Scan(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Entry{}, err
		}
		for _, e := range entries {
			if filepath.Base(e.Path) == file {
				if !e.OK() {
					return e, fmt.Errorf("plugin %q at %s cannot be used: %s", name, e.Path, e.Problem)
				}
				return e, nil
			}
			if e.OK() {
				have = append(have, e.Name)
			}
		}
	}
	there := "there are none"
	if len(have) > 0 {
		slices.Sort(have)
		there = "there are " + strings.Join(slices.Compact(have), ", ")
	}
	return Entry{}, fmt.Errorf("%w: %q: no file %s in %s; %s", ErrNotFound, name, file, strings.Join(dirs, " or "), there)
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// inspect looks at one file. A symbolic link may point inside the directory
// (a version switch), and nowhere else.
func inspect(dir, file string) Entry {
	e := Entry{Path: filepath.Join(dir, file)}
	info, err := os.Lstat(e.Path)
	if err != nil {
		e.Problem = "cannot be looked at: " + err.Error()
		return e
	}
	e.Size, e.Modified = info.Size(), info.ModTime()
	name, named := strings.CutPrefix(file, Prefix)
	if runtime.GOOS == "windows" {
		var exe bool
		name, exe = strings.CutSuffix(name, ".exe")
		named = named && exe
	}
	if !named || name == "" {
		e.Problem = "not named " + Prefix + "NAME" + exeSuffix()
		return e
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(e.Path)
		if err != nil {
			e.Problem = "a symbolic link that leads nowhere: " + err.Error()
			return e
		}
		root, err := filepath.EvalSymlinks(dir)
		if err != nil || filepath.Dir(target) != root {
			e.Problem = "a symbolic link out of the plugin directory, to " + target
			return e
		}
		if info, err = os.Stat(target); err != nil {
			e.Problem = "cannot be looked at: " + err.Error()
			return e
		}
		e.Size, e.Modified = info.Size(), info.ModTime()
	}
	e.Name = name
	switch {
	case info.IsDir():
		e.Problem = "a directory"
	case !info.Mode().IsRegular():
		e.Problem = "not a regular file"
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o111 == 0:
		e.Problem = "not executable; chmod +x " + e.Path
	case info.Size() == 0:
		e.Problem = "empty"
	default:
		e.Problem = writableByOthers(e.Path)
	}
	return e
}

// writableByOthers says so if everybody may change path, and with it what the
// host runs. A sticky directory does not let them replace what others own.
func writableByOthers(path string) string {
	if runtime.GOOS == "windows" {
		return "" // permissions are lists there, and not in the mode
	}
	info, err := os.Stat(path)
	if err != nil {
		return "cannot be looked at: " + err.Error()
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return path + " is writable by everybody; chmod o-w " + path
	}
	return ""
}
