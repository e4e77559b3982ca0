package credentials

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// maxFileBytes bounds auth.json. The reference's has 4 KiB.
	maxFileBytes = 1 << 20
	// settleTime is for how long something unreadable may be a file that is just
	// being written: who rewrites in place truncates first.
	settleTime = 300 * time.Millisecond
	// settleEvery is how often such a file is looked at again.
	settleEvery = 10 * time.Millisecond
)

// A fingerprint tells contents apart without keeping them.
type fingerprint [sha256.Size]byte

// A reading is what one look at the file saw.
type reading struct {
	content     []byte
	auth        auth
	problem     string // why auth is none, or ""
	unreadable  bool   // the file is there, or may be, and does not say what it holds
	fingerprint fingerprint
}

func readAuth(file string) reading {
	content, err := readFile(file)
	if err != nil {
		return reading{problem: err.Error(), unreadable: !errors.Is(err, fs.ErrNotExist), fingerprint: sha256.Sum256([]byte(err.Error()))}
	}
	r := reading{content: content, fingerprint: sha256.Sum256(content)}
	if r.auth, err = parseAuth(content); err != nil {
		r.auth, r.problem = auth{}, err.Error()
	}
	return r
}

// A noFile is [fs.ErrNotExist] in words for people.
type noFile struct{}

func (noFile) Error() string        { return "there is no such file" }
func (noFile) Is(target error) bool { return target == fs.ErrNotExist }

func readFile(file string) ([]byte, error) {
	info, err := os.Stat(file) // first: opening a pipe would wait for its writer
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, noFile{}
	case err != nil:
		return nil, fmt.Errorf("looking at the file: %w", err)
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noFile{}
	}
	if err != nil {
		return nil, fmt.Errorf("opening the file: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the file: %w", err)
	case len(content) > maxFileBytes:
		return nil, fmt.Errorf("the file has more than %d bytes", maxFileBytes)
	}
	return content, nil
}

// settled reads the file. What it cannot use, and has not seen before, it looks
// at again for a while; it gives up if done is closed. The caller holds disk.
func (s *Store) settled(done <-chan struct{}) (r reading, ok bool) {
	begin := time.Now()
	for {
		r = readAuth(s.opts.File)
		if !r.auth.none() || r.fingerprint == s.seen || time.Since(begin) >= settleTime {
			s.seen = r.fingerprint
			return r, true
		}
		select {
		case <-time.After(settleEvery):
		case <-done:
			return reading{}, false
		}
	}
}

// writeFile replaces the content of file, or of what it links to, so that a
// reader sees the old content or the new one. Where that cannot be done (a file
// mounted by itself, a directory that is closed) it is rewritten in place, as the
// reference does always.
func writeFile(file string, content []byte) error {
	target, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fmt.Errorf("following %s: %w", file, err)
	}
	f, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+".*") // mode 0600
	if errors.Is(err, fs.ErrPermission) {
		return rewrite(target, content)
	}
	if err != nil {
		return fmt.Errorf("writing beside the credentials: %w", err)
	}
	if err := writeAll(f, content); err != nil { // a full disk: the old content stays
		_ = os.Remove(f.Name()) // err says more
		return fmt.Errorf("writing beside the credentials: %w", err)
	}
	if err := os.Rename(f.Name(), target); err != nil {
		_ = os.Remove(f.Name())
		return rewrite(target, content)
	}
	syncDirectory(filepath.Dir(target))
	return nil
}

func rewrite(target string, content []byte) error {
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("writing the credentials: %w", err)
	}
	return writeAll(f, content)
}

// writeAll makes content the file's, on the disk, and closes f. It cuts last:
// what has about the old length needs no room.
func writeAll(f *os.File, content []byte) error {
	_, err := f.WriteAt(content, 0)
	if err == nil {
		err = errors.Join(f.Truncate(int64(len(content))), f.Chmod(0o600), f.Sync())
	}
	return errors.Join(err, f.Close())
}

// syncDirectory makes a rename last. Some systems cannot, and need not.
func syncDirectory(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}
