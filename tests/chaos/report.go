//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/transporthost/transporthost/tests/load"
)

// What a run must reach.
const (
	// maxRatio is that of the p99 of a transport that nobody touches to the p99 in
	// the calm run.
	maxRatio = 3.0
	// maxRecovery is the median from SIGKILL of a plugin until it serves.
	maxRecovery = 500 * time.Millisecond
	// maxRecoveryAfterHang is the same after a hang, beside its detection.
	maxRecoveryAfterHang = time.Second
	// fewest latencies that make a p99.
	fewest = 200
	// fewestRecoveries make a median: of two, the slower one would be it.
	fewestRecoveries = 3
)

// A report is what a run has shown.
type report struct {
	seed     uint64
	calmFor  time.Duration
	chaosFor time.Duration
	began    time.Time // of the chaos
	history  []usage
	before   holding
	after    holding
}

// A verdict is one line of the table.
type verdict struct {
	what, calm, got, aim string
	failed               bool
	unknown              bool // there is too little to judge
}

func (v verdict) mark() string {
	switch {
	case v.failed:
		return "FAILED"
	case v.unknown:
		return "not measured"
	case v.aim == "":
		return ""
	}
	return "ok"
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// latencies judges the p99 of what nobody touched.
func latencies(r *record) []verdict {
	var all []verdict
	for _, name := range []row{row(stdio), row(websocket), row(remotecontrol), connecting} {
		calm, chaos := r.calm[name], r.chaos[name]
		v := verdict{what: fmt.Sprintf("p99, %s untouched", name), aim: fmt.Sprintf("at most %.0fx", maxRatio), unknown: true}
		if count(calm) > 0 {
			v.calm = milliseconds(calm.Quantile(0.99))
		}
		if count(calm) > 0 && count(chaos) > 0 {
			ratio := float64(chaos.Quantile(0.99)) / float64(calm.Quantile(0.99))
			v.got = fmt.Sprintf("%s, %.2fx of %d", milliseconds(chaos.Quantile(0.99)), ratio, chaos.Count())
			// How long a connect takes is told and not judged: the issue of a new
			// socket is that it is never refused.
			v.unknown = count(calm) < fewest || count(chaos) < fewest
			v.failed = !v.unknown && ratio > maxRatio && name != connecting
		}
		if name == connecting {
			v.aim, v.unknown = "", false
		}
		all = append(all, v)
	}
	return all
}

func count(h *load.Histogram) uint64 {
	if h == nil {
		return 0
	}
	return h.Count()
}

// recoveries judges how long what was touched did not serve.
func recoveries(r *record) []verdict {
	limits := map[string]time.Duration{killName + string(application): maxRecovery}
	for _, t := range transports {
		limits[killName+string(t)] = maxRecovery
		limits[hangName+string(t)] = maxRecoveryAfterHang + probeTimeout + probeInterval
	}
	names := map[string]bool{}
	for name := range limits {
		names[name] = true
	}
	for name := range r.recoveries {
		names[name] = true
	}
	var all []verdict
	for _, name := range slices.Sorted(maps.Keys(names)) {
		v := verdict{what: "recovery, " + name}
		limit := limits[name]
		if limit > 0 {
			v.aim, v.unknown = "median at most "+milliseconds(limit), true
		}
		if times := slices.Sorted(slices.Values(r.recoveries[name])); len(times) > 0 {
			median := times[len(times)/2]
			v.got = fmt.Sprintf("%s, longest %s of %d", milliseconds(median), milliseconds(times[len(times)-1]), len(times))
			v.unknown = limit > 0 && len(times) < fewestRecoveries
			v.failed = limit > 0 && !v.unknown && median > limit
		}
		all = append(all, v)
	}
	return all
}

// holdings judges what the host still has.
func (p report) holdings() []verdict {
	var all []verdict
	compare := func(what string, before, after int) {
		all = append(all, verdict{what: what, calm: fmt.Sprint(before), got: fmt.Sprint(after), aim: "no more", failed: after > before})
	}
	compare("goroutines of the host", p.before.goroutines, p.after.goroutines)
	compare("open files of the host", p.before.files, p.after.files)
	compare("processes below it", p.before.processes, p.after.processes)
	compare("files in its runtime directory", p.before.sockets, p.after.sockets)
	v := verdict{what: "memory of the host", aim: fmt.Sprintf("at most +%.0f %% after %v", maxGrowth*100, warmUp)}
	if ratio, known := growth(p.history, p.began); known {
		v.got, v.failed = fmt.Sprintf("%+.1f %%", ratio*100), ratio > maxGrowth
	} else {
		v.unknown = true
	}
	if n := len(p.history); n > 0 {
		v.calm = fmt.Sprintf("%.1f MiB", float64(p.history[0].resident)/(1<<20))
		v.got = strings.TrimSpace(v.got + fmt.Sprintf(" (%.1f MiB)", float64(p.history[n-1].resident)/(1<<20)))
	}
	return append(all, v)
}

// print prints everything, and reports what has failed.
func (p report) print(w io.Writer, r *record) (failed []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(w, "seed %d: %v calm, %v chaos\n\n", p.seed, p.calmFor, p.chaosFor)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tCALM\tCHAOS\tAIM\t")
	for _, v := range slices.Concat(latencies(r), recoveries(r), p.holdings()) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", v.what, v.calm, v.got, v.aim, v.mark())
		if v.failed {
			failed = append(failed, fmt.Sprintf("%s: %s, want %s (calm: %s)", v.what, v.got, v.aim, v.calm))
		}
	}
	_ = t.Flush() // of a table in memory
	c := r.counts
	fmt.Fprintf(w, "\n%d statements of peers, %d answered with an error that names the application's end; %d notifications\n", c.statements, c.refused, c.ticks)
	fmt.Fprintf(w, "%d upgrades, none refused, %d broke and were tried again; %d sockets broke with their plugin, %d ended with one that had been replaced\n", c.connects, c.retried, c.broken, c.retired)
	if r.noisy > 0 {
		fmt.Fprintf(w, "for %.1f s of %.1f s something else used the machine: latencies of then do not count\n", r.noisy.Seconds(), r.whole.Seconds())
	}
	fmt.Fprintf(w, "%d statuses compared; no message lost, doubled, reordered or torn\n", c.samples)
	var done []string
	for _, name := range slices.Sorted(maps.Keys(r.actions)) {
		done = append(done, fmt.Sprintf("%s %d", name, r.actions[name]))
	}
	fmt.Fprintf(w, "actions: %s\n", strings.Join(done, "; "))
	return failed
}
