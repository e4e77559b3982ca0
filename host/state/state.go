// Package state keeps what plugins store with the host: one file with one
// writer, and in it one bucket per plugin instance.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// FileName is the file's in the state directory.
const FileName = "state.db"

// lockWait is how long Open waits for another host to let go of the file: long
// enough for one that is just ending.
const lockWait = time.Second

// A Store is the open file. Its methods may be called from any goroutine.
type Store struct{ db *bbolt.DB }

// Open opens the state in dir, and makes both if they are not there, closed to
// everybody else. It fails if another host has the file open, if the file is
// damaged, and if others may write in dir; a file that others may read is closed
// to them.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	if err := ownDirectory(dir); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, FileName)
	if err := closeToOthers(file); err != nil {
		return nil, err
	}
	db, err := open(file)
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("the state in %s is in use by another host; end that one, or give this one a directory of its own (state { dir = \"…\" })", dir)
	case isDamage(err):
		return nil, fmt.Errorf("the state file %s is damaged (%w); move it away to begin with an empty one", file, err)
	case err != nil:
		return nil, fmt.Errorf("opening the state: %w", err)
	}
	return &Store{db: db}, nil
}

// Close closes the file, once every call that is under way has returned.
// Later calls return [transport.ErrStopping].
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing the state: %w", err)
	}
	return nil
}

// Instance returns the bucket of one plugin instance. It need not exist yet.
func (s *Store) Instance(name string) *Bucket { return &Bucket{db: s.db, name: name} }

// A damageError says that the file is not what a Store left.
type damageError struct{ text string }

func (e *damageError) Error() string { return e.text }

func isDamage(err error) bool {
	for _, known := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(err, known) {
			return true
		}
	}
	_, ok := errors.AsType[*damageError](err)
	return ok
}

// open opens the file and reads all of it once: it is small, and what is
// damaged is found here rather than in the middle of a plugin's call.
func open(file string) (db *bbolt.DB, err error) {
	// bbolt maps the file and trusts its pages: one that points nowhere panics,
	// one beyond the end of a file that was cut is a fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, &damageError{text: fmt.Sprint(p)}
		}
	}()
	db, err = bbolt.Open(file, 0o600, &bbolt.Options{Timeout: lockWait})
	if err != nil {
		return nil, err
	}
	if err := db.View(whole); err != nil {
		_ = db.Close() // err says more
		return nil, err
	}
	return db, nil
}

// whole reads every bucket, key and value.
func whole(tx *bbolt.Tx) error {
	if info, err := os.Stat(tx.DB().Path()); err == nil && info.Size() < tx.Size() {
		return &damageError{text: fmt.Sprintf("it has %d bytes of %d", info.Size(), tx.Size())}
	}
	sum := 0
	return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
		if b == nil {
			return &damageError{text: "a value outside of every bucket"}
		}
		return b.ForEach(func(k, v []byte) error {
			for _, c := range k {
				sum += int(c)
			}
			for _, c := range v {
				sum += int(c)
			}
			return nil
		})
	})
}
