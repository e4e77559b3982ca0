// Package rundir is the private directory of one run of a host: it holds its
// sockets, and a record from which a later run, or the keeper, knows whose it
// is and what to clear away when the host is gone.
package rundir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/gofrs/flock"
	"github.com/hashicorp/go-hclog"

	"github.com/transporthost/transporthost/host/internal/lineage"
	"github.com/transporthost/transporthost/host/internal/unixsocket"
)

// longest leaves room for what stands behind a directory: the path of a socket
// has at most about 107 bytes, and go-plugin's own part of it is long.
const longest = 46

const (
	// runPrefix and the pid of a host name the directory of one run. Where a host
	// of another pid namespace has that name, which in containers is the rule, it
	// is runPrefix and sparePrefix and the first runDigits of the run: no longer.
	runPrefix   = "r"
	sparePrefix = "-"
	runDigits   = 6
	// newPrefix, the pid, the start time and the run name it until its record is in
	// it: so nobody takes it for that of a dead host.
	newPrefix = "n"
	// ownPrefix names those that are made where temporary files are.
	ownPrefix = "transporthost-"
)

// A Dir is the directory of this run.
type Dir struct {
	path   string
	spare  string // its name where another has path
	fresh  string // its name until it is whole; the same where nobody looks for it
	record Record
	lock   *flock.Flock // held from before the directory is whole until it is removed; nil: there is none
	log    hclog.Logger
}

// Plan chooses the directory of a run: below configured, or where temporary
// files are. What runs of hosts that are gone have left beside it is ended and
// removed; log gets a line about it. The directory itself is not made yet.
// sockets are files of the run that are elsewhere.
func Plan(ctx context.Context, configured string, run lineage.Run, sockets []string, log hclog.Logger) (*Dir, error) {
	host, _ := lineage.Of(os.Getpid())
	host.PID = os.Getpid() // should nothing else be known
	d := &Dir{record: Record{Host: host, Namespace: lineage.Namespace(), Run: run, Sockets: sockets}, log: log}
	if configured == "" {
		sweepOwn(ctx, os.TempDir(), log)
		d.path = filepath.Join(os.TempDir(), ownPrefix+run.String()[:10])
		d.fresh = d.path
		return d, nil
	}
	if len(configured) > longest {
		return nil, fmt.Errorf("the runtime directory %s has %d bytes, and at most %d leave room for the paths of sockets; choose a shorter one (--runtime-dir)",
			configured, len(configured), longest)
	}
	if err := os.MkdirAll(configured, 0o700); err != nil {
		return nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	if err := private(configured); err != nil {
		return nil, err
	}
	sweep(ctx, configured, log)
	d.path = filepath.Join(configured, runPrefix+strconv.Itoa(host.PID))
	d.spare = filepath.Join(configured, runPrefix+sparePrefix+run.String()[:runDigits])
	d.fresh = filepath.Join(configured, fmt.Sprintf("%s%d-%d-%v", newPrefix, host.PID, host.Start, run))
	return d, nil
}

// Path returns where the directory is, once it is made.
func (d *Dir) Path() string { return d.path }

// Places are the directories that there may be, at any moment, of this run.
func (d *Dir) Places() []string {
	if d.fresh == d.path {
		return []string{d.path}
	}
	return []string{d.fresh, d.path, d.spare}
}

// Sockets are the files of the run that are elsewhere.
func (d *Dir) Sockets() []string { return d.record.Sockets }

// Add records further files of the run that are elsewhere. It is called before
// they are there; on an error the record is what it was.
func (d *Dir) Add(sockets []string) error {
	next := d.record
	next.Sockets = slices.Concat(next.Sockets, sockets)
	if err := next.write(d.path); err != nil {
		return fmt.Errorf("recording further sockets in the runtime directory: %w", err)
	}
	d.record = next
	return nil
}

// Make makes the directory.
func (d *Dir) Make() (err error) {
	if d.fresh != d.path {
		defer unixsocket.Lock(d.fresh)() // others look meanwhile whether its maker lives
		if d.twin() {
			return errors.New("making the runtime directory: another host in this process uses it; give each its own")
		}
	}
	if err := os.Mkdir(d.fresh, 0o700); err != nil {
		return fmt.Errorf("making the runtime directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(d.fresh)
			d.release()
			err = fmt.Errorf("making the runtime directory: %w", err)
		}
	}()
	// First of all: where there is a record, there is the lock.
	if d.lock, err = hold(d.fresh); err != nil {
		d.log.Warn("the runtime directory is without a lock: hosts in other pid namespaces take this one for gone", "error", err)
	}
	if err := d.record.write(d.fresh); err != nil || d.fresh == d.path {
		return err
	}
	err = os.Rename(d.fresh, d.path)
	if errors.Is(err, os.ErrExist) { // of a host that is gone it was swept
		d.path, d.spare = d.spare, d.path
		err = os.Rename(d.fresh, d.path)
	}
	return err
}

// twin reports whether a host in this process has a directory beside this one.
func (d *Dir) twin() bool {
	return slices.ContainsFunc(Runs(filepath.Dir(d.path)), func(r Run) bool {
		return r.known && r.record.Host == d.record.Host && r.record.Namespace == d.record.Namespace
	})
}

// Remove removes the directory and what is in it.
func (d *Dir) Remove() {
	RemoveDir(d.path, d.record.Run)
	d.release()
}

func (d *Dir) release() {
	if d.lock != nil {
		_ = d.lock.Close()
	}
}
