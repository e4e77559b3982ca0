package load

import (
	"math/bits"
	"time"
)

// stepBits says how many steps a power of two is cut into: 64 steps make an
// error of at most 1.6 %.
const stepBits = 6

// A Histogram counts durations in steps that grow with them. The zero value is
// empty. It is not safe for concurrent use: every peer has one of its own, and
// they are added up at the end.
type Histogram struct {
	counts [(64 - stepBits) << stepBits]uint64
	total  uint64
	max    time.Duration
}

// Record counts one duration; a negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[stepOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

// Add adds the counts of other.
func (h *Histogram) Add(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.total }

// Max returns the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns a duration that the fraction q of all does not exceed, at
// most 1.6 % too high; 0 if nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && (seen > rank || seen == h.total) {
			return min(topOf(i), h.max)
		}
	}
	return 0
}

// stepOf returns the step that v belongs to: below 64 one step per value, then
// 64 steps per power of two.
func stepOf(v uint64) int {
	shift := max(bits.Len64(v)-stepBits-1, 0)
	return shift<<stepBits + int(v>>shift)
}

// topOf returns the largest value of a step.
func topOf(step int) time.Duration {
	if step < 2<<stepBits {
		return time.Duration(step)
	}
	shift := step>>stepBits - 1
	return time.Duration(uint64(step-shift<<stepBits+1)<<shift - 1)
}
