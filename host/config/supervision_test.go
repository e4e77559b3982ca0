package config

import (
	"strings"
	"testing"
	"time"

	"github.com/transporthost/transporthost/host/internal/backoff"
)

func TestWhatSupervisionLeavesOutIsTheDefault(t *testing.T) {
	if got := parse(t, smallest).Supervision; got != (Supervision{}) {
		t.Errorf("no block: got %+v, want nothing", got)
	}
	if got := parse(t, smallest+"supervision { probe_interval = \"1s\" }").Supervision; got != (Supervision{ProbeInterval: time.Second}) {
		t.Errorf("an interval: got %+v, want only that", got)
	}
	want := backoff.Default()
	want.GiveUpAfter = 9
	if got := parse(t, smallest+"supervision { give_up_after = 9 }").Supervision.Restart; got != want {
		t.Errorf("one key of the policy: got %+v, want %+v", got, want)
	}
}

func TestSupervisionMistakes(t *testing.T) {
	for _, tt := range []struct{ name, keys, want string }{
		{"nothing", `probe_interval = "0s"`, "host.hcl:4:18: probe_interval is 0s, want more than 0"},
		{"backwards", `healthy_after = "-1s"`, "host.hcl:4:17: healthy_after is -1s, want more than 0"},
		{"never", `give_up_after = 0`, "host.hcl:4:17: give_up_after is 0, want 1 or more"},
		{"late probes", "probe_interval = \"2s\"\nprobe_timeout = \"2s\"", "host.hcl:5:17: probe_timeout is 2s, want more than probe_interval, which is 2s; a plugin is given up"},
		{"a bound below the default", `max_restart_delay = "1ms"`, "host.hcl:4:21: restart_delay is 250ms, want at most max_restart_delay, which is 1ms"},
		{"above the default bound", `restart_delay = "1h"`, "host.hcl:4:17: restart_delay is 1h0m0s, want at most max_restart_delay, which is 30s"},
		{"unknown", `probe_every = "1s"`, `host.hcl:4:1: unsupported key "probe_every" in supervision; allowed are give_up_after`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("host.hcl", []byte(smallest+"supervision {\n"+tt.keys+"\n}\n"))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
