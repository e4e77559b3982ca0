package lineage

// An Identity names one process for good: its number is given to another one
// day, and again after a boot.
type Identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start,omitempty"` // in ticks since the boot; 0 where the system does not tell
	Boot  string `json:"boot,omitempty"`  // id of the boot
}

// Running reports whether that very process runs. One that is dead and not yet
// buried does not. Where start times are not told it means any process with the
// number.
func (i Identity) Running() bool {
	now, ok := Of(i.PID)
	return ok && now == i
}
