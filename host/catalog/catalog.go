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
	entries := make([]Entry, 0, len(files))
	for _, f := range files {
		entries = append(entries, inspect(dir, f.Name()))
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
					return e, fmt.Errorf("plugin %q: %w", name, untrusted(e.Path, e.Problem))
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

// inspect looks at one file.
func inspect(dir, file string) Entry {
	e := Entry{Path: filepath.Join(dir, file)}
	name, named := strings.CutPrefix(file, Prefix)
	if runtime.GOOS == "windows" {
		var exe bool
		name, exe = strings.CutSuffix(name, ".exe")
		named = named && exe
	}
	if !named || name == "" {
		e.Problem = "not named " + Prefix + "NAME" + exeSuffix()
		if info, err := os.Lstat(e.Path); err == nil {
			e.Size, e.Modified = info.Size(), info.ModTime()
		}
		return e
	}
	e.Name = name
	c, problem := examine(dir, file)
	c.close()
	e.Problem = problem
	if c.info != nil {
		e.Size, e.Modified = c.info.Size(), c.info.ModTime()
	}
	return e
}
