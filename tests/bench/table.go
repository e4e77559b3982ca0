package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// A line is one line of the table: the median of what was measured.
type line struct {
	what     string
	host     string // absolute, for the reader
	baseline string
	value    float64 // what is compared with the floor; NaN if it could not be measured
	unit     string
	floor    floor
}

// A floor is what a value must reach. The zero value is no floor.
type floor struct {
	atLeast, atMost float64
}

// in writes the floor with the unit of its value.
func (f floor) in(unit string) string {
	switch {
	case f.atLeast > 0:
		return fmt.Sprintf("≥ %g%s", f.atLeast, unit)
	case f.atMost > 0:
		return fmt.Sprintf("≤ %g%s", f.atMost, unit)
	}
	return "–"
}

// The verdicts about a line.
const (
	meetsFloor  = "ok"
	belowFloor  = "below"
	notMeasured = "not measured"
	noFloor     = "–"
)

func (l line) verdict() string {
	switch {
	case math.IsNaN(l.value):
		return notMeasured
	case l.floor == floor{}:
		return noFloor
	case l.floor.atLeast > 0 && l.value < l.floor.atLeast, l.floor.atMost > 0 && l.value > l.floor.atMost:
		return belowFloor
	}
	return meetsFloor
}

func printHead(w io.Writer) {
	fmt.Fprintf(w, "| %-42s | %-14s | %-14s | %11s | %9s | %-5s |\n", "what", "host", "baseline", "measured", "floor", "")
	fmt.Fprintln(w, "|---|---|---|--:|--:|---|")
}

func (l line) print(w io.Writer) {
	value := "–"
	if !math.IsNaN(l.value) {
		value = fmt.Sprintf("%.2f%s", l.value, l.unit)
		if math.Abs(l.value) >= 20 {
			value = fmt.Sprintf("%.0f%s", l.value, l.unit)
		}
	}
	fmt.Fprintf(w, "| %-42s | %-14s | %-14s | %11s | %9s | %-5s |\n", l.what, l.host, l.baseline, value, l.floor.in(l.unit), l.verdict())
}

// median returns the middle of values, or NaN of none. Of an even number it is
// the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio returns a/b, or NaN if there is no b.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
