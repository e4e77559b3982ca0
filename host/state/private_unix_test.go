//go:build unix

package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateIsClosedToOthers(t *testing.T) {
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	dir := filepath.Join(t.TempDir(), "state")
	file := filepath.Join(dir, FileName)
	if err := mustOpen(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if d, f := mode(dir), mode(file); d != 0o700 || f != 0o600 {
		t.Errorf("made with modes %o and %o, want 700 and 600", d, f)
	}

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	if f := mode(file); f != 0o600 {
		t.Errorf("a file that others could read has mode %o, want 600", f)
	}

	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "others may write in the state directory") {
		t.Errorf("a directory that the group may write in: got %v", err)
	}

	other := t.TempDir()
	if err := os.Mkdir(filepath.Join(other, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("a directory in the place of the file: got %v", err)
	}
}
