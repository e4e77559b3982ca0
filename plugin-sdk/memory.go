package pluginsdk

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryInterval is how often a process looks whether it is at rest.
	memoryInterval = 2 * time.Second
	// restingAllocs is what a process at rest allocates between two looks:
	// probes, pings, a message now and then.
	restingAllocs = 1 << 20
	// worthReturning is how much garbage, or memory that nothing uses, is worth a
	// collection.
	worthReturning = 4 << 20
)

// A memorySample is what a process had allocated at a moment.
type memorySample struct {
	allocated uint64 // in all
	objects   uint64 // live, or garbage that is not collected
	live      uint64 // after the last collection
	free      uint64 // used by nothing, and not given back to the system
}

func readMemory() memorySample {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	return memorySample{allocated: s[0].Value.Uint64(), objects: s[1].Value.Uint64(), live: s[2].Value.Uint64(), free: s[3].Value.Uint64()}
}

// resting reports whether a process has come to rest with memory that is worth
// giving back. The collector by itself runs when memory has doubled, and else
// every two minutes, and returns what is free over minutes: after ten thousand
// peers have connected, a quarter of the memory is what their handshakes left.
func (now memorySample) resting(before memorySample) bool {
	return now.allocated-before.allocated < restingAllocs &&
		(now.objects > now.live+worthReturning || now.free > worthReturning)
}

// returnMemory gives memory back to the system when the process has come to
// rest, until ctx ends.
func returnMemory(ctx context.Context) {
	t := time.NewTicker(memoryInterval)
	defer t.Stop()
	for before := readMemory(); ; {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		now := readMemory()
		if now.resting(before) {
			debug.FreeOSMemory()
		}
		before = now
	}
}
