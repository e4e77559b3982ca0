package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
)

// lockName is the file in a directory whose lock its host holds for as long as
// it lives. The system releases it, whatever the host dies of, and shows it to
// those to whom the host's pid says nothing: hosts in other pid namespaces.
const lockName = "run.lock"

// hold takes the lock of a directory that nobody else knows yet. It is nobody's
// but this process's: the descriptor closes with an execution, and a child
// between its fork and that has it for a moment at most.
func hold(dir string) (*flock.Flock, error) {
	// Windows renames no directory with an open file in it. Nothing is swept there.
	if runtime.GOOS == "windows" {
		return nil, nil
	}
	// For writing: over NFS an exclusive lock needs that.
	l := flock.New(filepath.Join(dir, lockName), flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err == nil && !ok {
		err = errors.New("somebody else has it")
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// held reports whether the host of a directory has its lock, and so lives. If
// not, it is gone, or is of an older version, or the file system has no locks.
func held(dir string) bool {
	// Shared: those who look do not see each other.
	l := flock.New(filepath.Join(dir, lockName), flock.SetFlag(os.O_RDONLY))
	free, err := l.TryRLock()
	_ = l.Close()
	return err == nil && !free
}
