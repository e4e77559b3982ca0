//go:build unix

package catalog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func file(t *testing.T, dir, name string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func TestScanSaysWhyAFileIsNoPlugin(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	file(t, dir, "transport-good", 0o755)
	file(t, dir, "README", 0o644)
	file(t, dir, "transport-", 0o755)
	file(t, dir, "transport-text", 0o644)
	file(t, dir, "transport-open", 0o777)
	file(t, outside, "evil", 0o755)
	for name, target := range map[string]string{"transport-inside": "transport-good", "transport-outside": filepath.Join(outside, "evil"), "transport-nowhere": "gone"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "transport-dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "transport-empty"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"README": "not named transport-NAME", "transport-": "not named transport-NAME", "transport-good": "", "transport-inside": "",
		"transport-text": "not executable; chmod +x", "transport-open": "writable by everybody", "transport-dir": "a directory",
		"transport-outside": "a symbolic link out of the plugin directory", "transport-nowhere": "a symbolic link that leads nowhere",
		"transport-empty": "empty",
	}
	entries, err := Scan(dir)
	if err != nil || len(entries) != len(want) {
		t.Fatalf("%d entries, %v; want %d", len(entries), err, len(want))
	}
	for _, e := range entries {
		w := want[filepath.Base(e.Path)]
		if (w == "") != e.OK() || !strings.Contains(e.Problem, w) {
			t.Errorf("%s: %q, want %q", filepath.Base(e.Path), e.Problem, w)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Find([]string{dir}, "good"); err == nil || !strings.Contains(err.Error(), "chmod o-w "+dir) {
		t.Errorf("a plugin in a directory that everybody may write: %v", err)
	}
}

func TestFind(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	file(t, one, "transport-a", 0o755)
	want := file(t, two, "transport-b", 0o755)
	e, err := Find([]string{filepath.Join(one, "not-there"), one, two}, "b")
	if err != nil || e.Path != want || e.Name != "b" {
		t.Errorf("Find = %+v, %v; want %s", e, err, want)
	}
	_, err = Find([]string{one, two}, "c")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `"c": no file transport-c in `+one+" or "+two+"; there are a, b") {
		t.Errorf("Find of what is not there: %v", err)
	}
}

func TestVerified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip("no program to run")
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, fmt.Sprintf("%x", sha256.Sum256([]byte("other")))); !errors.Is(err, ErrChecksum) || !strings.Contains(err.Error(), path) {
		t.Errorf("with another checksum: %v", err)
	}
	exe, err := Open(path, fmt.Sprintf("%x", sha256.Sum256(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if runtime.GOOS == "linux" { // what runs is what was checked, whatever becomes of the file
		if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(exe.Path).CombinedOutput(); err != nil {
		t.Errorf("running %s: %v %s", exe.Path, err, out)
	}
}

func TestParseSum(t *testing.T) {
	for _, s := range []string{"", "ab", strings.Repeat("g", 64), strings.Repeat("a", 66)} {
		if _, err := ParseSum(s); err == nil || !strings.Contains(err.Error(), "want 64 hexadecimal digits") {
			t.Errorf("ParseSum(%q): %v", s, err)
		}
	}
	sum, err := ParseSum(strings.Repeat("0A", 32) + "\n")
	if err != nil || sum[0] != 10 {
		t.Errorf("ParseSum = %x, %v", sum, err)
	}
}
