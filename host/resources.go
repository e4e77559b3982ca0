package host

import "runtime/metrics"

// Resources are what the host's own process uses now. They are for those who
// watch that nothing grows for ever.
type Resources struct {
	Goroutines int    `json:"goroutines"`
	HeapBytes  uint64 `json:"heap_bytes"` // of objects, those that are garbage since the last collection too
	OpenFiles  int    `json:"open_files"` // descriptors; 0 where the system does not tell
}

// ownResources reads them without stopping anything.
func ownResources() Resources {
	s := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	r := Resources{OpenFiles: openFiles()}
	if s[0].Value.Kind() == metrics.KindUint64 { // a later Go may know it under another name
		r.Goroutines = int(s[0].Value.Uint64())
	}
	if s[1].Value.Kind() == metrics.KindUint64 {
		r.HeapBytes = s[1].Value.Uint64()
	}
	return r
}
