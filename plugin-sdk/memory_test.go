package pluginsdk

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestResting(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		name        string
		before, now memorySample
		want        bool
	}{
		{"a burst is over", memorySample{allocated: 100 * mib}, memorySample{allocated: 100 * mib, objects: 60 * mib, live: 30 * mib}, true},
		{"a burst is over, and collected", memorySample{allocated: 100 * mib}, memorySample{allocated: 100 * mib, objects: 30 * mib, live: 30 * mib, free: 25 * mib}, true},
		{"it goes on", memorySample{allocated: 90 * mib}, memorySample{allocated: 100 * mib, objects: 60 * mib, live: 30 * mib}, false},
		{"collected already", memorySample{allocated: 100 * mib}, memorySample{allocated: 100 * mib, objects: 31 * mib, live: 30 * mib}, false},
		{"objects were freed and counted late", memorySample{allocated: mib}, memorySample{allocated: mib, objects: 1 * mib, live: 30 * mib}, false},
	} {
		if got := tt.now.resting(tt.before); got != tt.want {
			t.Errorf("%s: resting is %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestGarbageIsSeen pins down that the runtime's numbers mean what the rule
// thinks they do.
func TestGarbageIsSeen(t *testing.T) {
	runtime.GC()
	before := readMemory()
	kept := make([][]byte, 64)
	for i := range kept {
		kept[i] = make([]byte, 1<<20)
	}
	full := readMemory()
	if full.allocated-before.allocated < 60<<20 || full.resting(before) {
		t.Errorf("after 64 MiB: %+v, before %+v", full, before)
	}
	runtime.KeepAlive(kept)
	runtime.GC()
	if now := readMemory(); now.objects > now.live+worthReturning || !now.resting(now) {
		t.Errorf("after a collection: %+v, want no garbage, and memory to give back", now)
	}
	debug.FreeOSMemory()
	if now := readMemory(); now.resting(now) {
		t.Errorf("after everything was given back: %+v", now)
	}
}
