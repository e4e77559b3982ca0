//go:build !linux

package lineage

import "time"

// Bear does nothing here.
func (m Mark) Bear(int) {}

// Lend does nothing here.
func (m Mark) Lend() (end func()) { return func() {} }

// Shed does nothing here.
func Shed(int) {}

// A Member is a process that seems to descend from a run.
type Member struct {
	PID   int
	Child uint32
}

// Members cannot tell here.
func (r Run) Members() []Member { return nil }

// Kill does nothing here.
func (m Member) Kill() bool { return false }

// End does nothing here.
func (r Run) End(time.Duration) (left int) { return 0 }
