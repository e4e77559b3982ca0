package credentials

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// calm is how long after the first event the file is looked at: whoever
// replaces it has more than one thing to do.
const calm = 20 * time.Millisecond

// reasonFile is told of changes that the watcher, or the poll, found.
const reasonFile = "the file changed"

// watch looks at the file whenever something happens to it, and now and then in
// any case, until ctx ends.
func (s *Store) watch(ctx context.Context) {
	var events <-chan fsnotify.Event
	var errs <-chan error
	w := s.newWatcher()
	if w != nil {
		defer w.notify.Close()
		events, errs = w.notify.Events, w.notify.Errors
	}
	poll := time.NewTicker(s.opts.Poll)
	defer poll.Stop()
	due := time.NewTimer(0) // at once: the file may have changed since New
	defer due.Stop()
	waiting := true // for due
	soon := func() {
		if !waiting {
			due.Reset(calm)
			waiting = true
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if w.concerns(e) {
				soon()
			}
			continue
		case err := <-errs:
			s.log.Debug("watching the credentials", "error", err) // events were lost
			soon()
			continue
		case <-due.C:
			waiting = false
		case <-poll.C:
			s.saveAgain(ctx.Done())
		}
		if w != nil {
			// First: what happens after the look makes an event.
			if err := w.follow(); err != nil {
				s.log.Debug("some of the way to the credentials is polled only", "error", err)
			}
			s.log.Trace("watching the credentials", "places", len(w.places), "directories", len(w.dirs))
		}
		s.look(ctx.Done(), reasonFile)
	}
}

// A watcher watches the directories in which something could change what is
// read: the file's, those of the symbolic links on the way to it, and if one of
// them is missing, the one in which it would appear.
type watcher struct {
	file   string
	notify *fsnotify.Watcher
	places map[string]bool // paths whose change matters
	dirs   map[string]bool // those that are watched
}

// newWatcher returns nil if there is none to be had; the poll remains.
func (s *Store) newWatcher() *watcher {
	if s.opts.NoWatch {
		return nil
	}
	n, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.Warn("the credentials are polled only", "error", err, "every", s.opts.Poll)
		return nil
	}
	return &watcher{file: s.opts.File, notify: n}
}

func (w *watcher) concerns(e fsnotify.Event) bool {
	name := filepath.Clean(e.Name)
	return w.places[name] || w.dirs[name] // a directory itself: moved away, or removed
}

// follow makes the watches fit the way to the file as it is now.
func (w *watcher) follow() error {
	places := wayTo(w.file)
	dirs := make(map[string]bool)
	for place := range places {
		dirs[filepath.Dir(place)] = true
	}
	for dir := range w.dirs {
		if !dirs[dir] {
			_ = w.notify.Remove(dir) // it may be gone
		}
	}
	var errs []error
	for dir := range dirs {
		// Also what is watched already: it may be another directory by now.
		errs = append(errs, w.notify.Add(dir))
	}
	w.places, w.dirs = places, dirs
	return errors.Join(errs...)
}

// maxLinks is how many symbolic links are followed on the way to the file, as
// in the kernels.
const maxLinks = 40

// wayTo returns the paths whose change may change what is read at file, an
// absolute path: what it leads to, every symbolic link on the way, and the first
// part of the way that is missing. No directory of theirs has two names: a watch
// belongs to the directory, and removing it under one name would end the other.
func wayTo(file string) map[string]bool {
	way := make(map[string]bool)
	root := filepath.VolumeName(file) + string(filepath.Separator)
	at, rest, links := root, parts(file), 0
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		if err != nil {
			way[next] = true
			return way
		}
		rest = rest[1:]
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		way[next] = true
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return way
		}
		if filepath.IsAbs(target) {
			at = filepath.VolumeName(target) + string(filepath.Separator)
		}
		rest = append(parts(target), rest...)
	}
	way[at] = true
	return way
}

// parts returns the parts of a path without its root. ".." stays: it is not
// what it looks like behind a symbolic link, and Join resolves it from there.
func parts(path string) []string {
	path = strings.TrimPrefix(path, filepath.VolumeName(path))
	return strings.FieldsFunc(path, func(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) })
}
