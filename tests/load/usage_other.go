//go:build !linux

package load

// readUsage accounts nothing: there is no /proc.
func readUsage([]int) (usage, error) { return usage{}, nil }

// Descendants returns roots only: there is no /proc.
func Descendants(roots ...int) []int { return roots }

// ReadMemory reads nothing: there is no /proc.
func ReadMemory(...int) (Memory, error) { return Memory{}, nil }
