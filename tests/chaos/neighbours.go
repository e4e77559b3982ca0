//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/transporthost/transporthost/tests/load"
)

const (
	// windowLength is how long a stretch is that counts or does not.
	windowLength = 500 * time.Millisecond
	// maxOthers is how much of one CPU anybody else may use in it: what is slow
	// because something else runs says nothing about the host.
	maxOthers = 0.25
	// tickLength is the unit of CPU times in /proc: USER_HZ, which is 100 on every
	// architecture that Go runs on.
	tickLength = 10 * time.Millisecond
)

// A cpuTime is what was used since the machine, or each process, began.
type cpuTime struct {
	machine time.Duration // by everybody, the hypervisor's other guests too
	ours    time.Duration // by this process and all below it, those too that have ended
}

func readCPU() (cpuTime, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTime{}, fmt.Errorf("reading the CPU time of the machine: %w", err)
	}
	var c cpuTime
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, field := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq steal …
		if i >= 1 && i <= 8 && i != 4 && i != 5 {
			c.machine += ticks(field)
		}
	}
	for _, pid := range load.Descendants(os.Getpid()) {
		if fields := statOf(pid); len(fields) > 14 {
			for _, field := range fields[11:15] { // of itself, and of children that it has waited for
				c.ours += ticks(field)
			}
		}
	}
	return c, nil
}

func ticks(field string) time.Duration {
	n, err := strconv.ParseInt(field, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n) * tickLength
}

// watchNeighbours tells the record of each stretch whether the machine was ours
// in it, until ctx ends.
func watchNeighbours(ctx context.Context, r *record) {
	before, err := readCPU()
	began := time.Now()
	for err == nil && pause(ctx, windowLength) {
		var now cpuTime
		if now, err = readCPU(); err != nil {
			break
		}
		others := (now.machine - before.machine) - (now.ours - before.ours)
		r.closeWindow(time.Since(began), others.Seconds()/time.Since(began).Seconds() <= maxOthers)
		before, began = now, time.Now()
	}
	if err != nil {
		r.fail("%v", err)
	}
}
