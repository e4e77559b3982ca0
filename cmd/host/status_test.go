package main

import (
	"strings"
	"testing"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/application"
	"github.com/transporthost/transporthost/host/supervisor"
)

// TestStatusCountsRestarts of a transport and of the application, in words.
func TestStatusCountsRestarts(t *testing.T) {
	for n, want := range map[int]string{0: "", 1: ", 1 restart", 2: ", 2 restarts"} {
		var out strings.Builder
		s := host.Status{
			Application: application.Status{Driver: "exec", Command: "app", Restarts: n},
			Plugins:     []supervisor.Status{{Instance: "phone", State: supervisor.Ready, PID: 7, Restarts: n}},
		}
		if err := printStatus(streams{out: &out}, s); err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"app, 0 processes" + want + "\n", ", pid 7" + want + "\n"} {
			if !strings.Contains(out.String(), line) {
				t.Errorf("after %d restarts there is no %q in\n%s", n, line, out.String())
			}
		}
	}
}
