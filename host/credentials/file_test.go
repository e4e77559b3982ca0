package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriteFile: both ways leave exactly the new content, whether it is longer
// or shorter, and close the file to others.
func TestWriteFile(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"beside it": writeFile, "in place": rewrite} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "auth.json")
			if err := os.WriteFile(file, []byte("before"), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{strings.Repeat("long", 5000), "short"} {
				if err := write(file, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
				}
			}
			if info, err := os.Stat(file); err != nil || os.PathSeparator == '/' && info.Mode().Perm() != 0o600 {
				t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
			}
			if err := write(file+".gone", nil); err == nil {
				t.Error("a file was made that was not there")
			}
		})
	}
}

func TestReadFileRefuses(t *testing.T) {
	dir := t.TempDir()
	if r := readAuth(dir); r.problem != "it is not a file" {
		t.Errorf("a directory: %q", r.problem)
	}
	file := filepath.Join(dir, "auth.json")
	put(t, file, strings.Repeat(" ", maxFileBytes-len(apiKeyFile))+apiKeyFile)
	if r := readAuth(file); r.auth.mode != APIKey {
		t.Errorf("a file of the largest size: %q", r.problem)
	}
	put(t, file, strings.Repeat(" ", maxFileBytes+1-len(apiKeyFile))+apiKeyFile)
	if r := readAuth(file); r.problem != "the file has more than 1048576 bytes" {
		t.Errorf("a larger one: %q", r.problem)
	}
}
