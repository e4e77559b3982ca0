package childproc

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInterpreter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script")
	for text, want := range map[string]string{
		"#!/bin/sh\necho":               "/bin/sh",
		"#! \t/usr/bin/env -S python\n": "/usr/bin/env",
		"#!/bin/sh":                     "/bin/sh",
		"#!/bin/sh\r\necho":             "/bin/sh\r",
		"#!\n/bin/sh":                   "",
		"#!   \n":                       "",
		" #!/bin/sh\n":                  "",
		"\x7fELF":                       "",
		"":                              "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Interpreter(path); got != want {
			t.Errorf("of %q it is %q, want %q", text, got, want)
		}
	}
	if got := Interpreter(path + " is not there"); got != "" {
		t.Errorf("of no file it is %q", got)
	}
}
