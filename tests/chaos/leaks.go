//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// leakTimeout is how long what is no longer needed may take to go.
	leakTimeout = 20 * time.Second
	// warmUp is how long a host may grow; see [growth].
	warmUp = time.Minute
	// memoryWindow is what one number for the memory is made of.
	memoryWindow = 15 * time.Second
	// maxGrowth of the memory behind the warm-up.
	maxGrowth = 0.10
)

// A holding is what the host holds while nothing happens.
type holding struct {
	goroutines int
	files      int
	processes  int
	sockets    int // and other files in the runtime directory
	temporary  int // files in the temporary directory
	plugins    map[part]int
}

// holds reads what the host holds now.
func (l *laboratory) holds(ctx context.Context) (holding, error) {
	s, err := l.host.asked.Status(ctx)
	if err != nil {
		return holding{}, err
	}
	h := holding{
		goroutines: s.Resources.Goroutines, processes: len(family(l.host.pid())), plugins: map[part]int{},
		sockets: len(tree(l.dirs.runtime())), temporary: len(tree(l.dirs.temp())),
	}
	if h.files, err = openFiles(l.host.pid()); err != nil {
		return h, err
	}
	for _, p := range s.Plugins {
		if h.plugins[part(p.Instance)], err = openFiles(p.PID); err != nil {
			return h, err
		}
	}
	return h, nil
}

// beyond says what h has more of than before.
func (h holding) beyond(before holding) []string {
	var all []string
	more := func(what string, now, then int) {
		if now > then {
			all = append(all, fmt.Sprintf("%s: %d, %d in the calm run", what, now, then))
		}
	}
	more("goroutines of the host", h.goroutines, before.goroutines)
	more("open files of the host", h.files, before.files)
	more("processes below the host", h.processes, before.processes)
	more("files in the runtime directory", h.sockets, before.sockets)
	more("files in the temporary directory", h.temporary, before.temporary)
	for _, t := range transports {
		more("open files of the plugin "+string(t), h.plugins[t], before.plugins[t])
	}
	return all
}

// rest lets everybody fall silent, and returns what the host holds once that
// has stopped shrinking.
func (l *laboratory) rest(ctx context.Context) (holding, error) {
	if err := l.hush(ctx); err != nil {
		return holding{}, err
	}
	const looks, between = 10, 200 * time.Millisecond
	var least holding
	for n := 0; n < looks; n++ {
		h, err := l.holds(ctx)
		if err != nil {
			return h, err
		}
		if n == 0 || len(least.beyond(h)) > 0 {
			least, n = h, 0
		}
		if !pause(ctx, between) {
			return h, context.Cause(ctx)
		}
	}
	return least, nil
}

// leaked lets everybody fall silent, waits until the host holds no more than
// before, and returns what it still has too much of. Peers whose sockets are
// those of an earlier build's process come anew: it may stay for them.
func (l *laboratory) leaked(ctx context.Context, before holding) (holding, []string, error) {
	err := l.hush(ctx)
	for _, p := range l.sockets {
		p.renew()
	}
	if err == nil {
		err = l.settle(ctx, websocket)
	}
	if err != nil {
		return holding{}, nil, err
	}
	for deadline := time.Now().Add(leakTimeout); ; {
		h, err := l.holds(ctx)
		if err != nil {
			return h, nil, err
		}
		more := h.beyond(before)
		if len(more) == 0 || time.Now().After(deadline) {
			return h, more, nil
		}
		if !pause(ctx, 10*pollInterval) {
			return h, nil, context.Cause(ctx)
		}
	}
}

// growth compares the memory at the end with that behind the warm-up. It is not
// known for a run that is too short for both.
func growth(history []usage, began time.Time) (ratio float64, known bool) {
	if len(history) == 0 {
		return 0, false
	}
	end := history[len(history)-1].at
	first := window(history, began.Add(warmUp), began.Add(warmUp+memoryWindow))
	last := window(history, end.Add(-memoryWindow), end)
	if first == 0 || end.Sub(began) < warmUp+2*memoryWindow {
		return 0, false
	}
	return float64(last)/float64(first) - 1, true
}

// window is the median of the resident memory between two moments; 0 if it was
// not read then.
func window(history []usage, from, to time.Time) int64 {
	var values []int64
	for _, u := range history {
		if u.at.Before(from) || u.at.After(to) {
			continue
		}
		values = append(values, u.resident)
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// remains says what is left of a host that has ended.
func remains(l *laboratory, seen []process) error {
	var errs []error
	for _, p := range seen {
		if p.alive() {
			errs = append(errs, fmt.Errorf("left behind: %v", p))
		}
	}
	for _, dir := range []string{l.dirs.runtime(), l.dirs.temp()} {
		if left := tree(dir); len(left) > 0 {
			errs = append(errs, fmt.Errorf("left behind in %s: %s", dir, strings.Join(left, ", ")))
		}
	}
	if _, err := os.Stat(l.dirs.login()); err != nil {
		errs = append(errs, fmt.Errorf("the account's login: %w", err))
	}
	return errors.Join(errs...)
}
