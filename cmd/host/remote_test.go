package main

import (
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host"
	"github.com/transporthost/transporthost/host/supervisor"
	pluginsdk "github.com/transporthost/transporthost/plugin-sdk"
)

// TestSwitchedOffSince: a transport that was just switched off may not have said
// so yet, and what it said before is not since when it is off.
func TestSwitchedOffSince(t *testing.T) {
	on := time.Date(2026, 4, 10, 12, 0, 0, 0, time.Local)
	off := on.Add(time.Hour)
	for said, want := range map[string]string{"connected": "since 13:00:00", "disabled": "since 12:00:00 (1h0m0s ago)"} {
		var out strings.Builder
		s := host.TransportStatus{Instance: "phone", State: supervisor.Disabled, Since: off, PID: 1, Reported: &pluginsdk.Status{
			State: said, Details: map[string]string{"since": on.UTC().Format(time.RFC3339)},
		}}
		if err := printRemote(&out, []host.TransportStatus{s}, off); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != "phone disabled "+want {
			t.Errorf("said %s: printed %q, want %s", said, got, want)
		}
	}
}
